"""Does the model know the primer's facts? Held-out paraphrases, key facts, accuracy by topic."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tallyformer.evaluation.answers import Ask

if TYPE_CHECKING:
    from tallyformer.corpus.questions import Fact

_SIGNS = "=+%$<>×"
_DROPPED = re.compile(rf"[^\w{_SIGNS}.]|_|(?<!\d)\.|\.(?!\d)")
_TIMES = re.compile(r"(?<=\d)\s*x\s*(?=\d)|(?<=\s)x(?=\s)|\*")
_AROUND_SIGNS = re.compile(rf"\s*([{_SIGNS}])\s*")


@dataclass(frozen=True)
class FactAnswer:
    """One held-out question with the model's answer, and whether a key fact is in it."""

    fact: str
    topic: str
    question: str
    answer: str
    expected: str
    right: bool


def ask_facts(facts: Iterable[Fact], ask: Ask) -> list[FactAnswer]:
    """Ask every held-out question of every fact."""
    asked = [(fact, question) for fact in facts for question in fact.held_out]
    answers = ask([question for _, question in asked])
    return [
        FactAnswer(
            fact=fact.id,
            topic=fact.topic,
            question=question,
            answer=answer,
            expected=fact.answer,
            right=contains_key_fact(answer, fact.key_facts),
        )
        for (fact, question), answer in zip(asked, answers, strict=True)
    ]


def contains_key_fact(answer: str, key_facts: Sequence[str]) -> bool:
    """Whether any key fact is in the answer, whatever the case, spacing and punctuation.

    A key fact is whole words and numbers: "10%" is not in "110%", "1.5" not in "1.55", "risk" not
    in "riskless". Only an s or es may follow a word: "dividend" is in "dividends".
    """
    text = normalise(answer)
    return any(_occurs(normalise(key), text) for key in key_facts)


def normalise(text: str) -> str:
    """Lower case, single spaces and none around = + % $ < > ×, all other punctuation out.

    A decimal point stays; x between numbers or alone, and *, are ×.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    # An apostrophe joins ("owner's" and "owners" alike); any other punctuation separates.
    text = re.sub(r"(?<=\w)['’](?=\w)", "", text)
    text = _DROPPED.sub(" ", _TIMES.sub("×", text))
    return " ".join(_AROUND_SIGNS.sub(r"\1", text).split())


def _occurs(key: str, text: str) -> bool:
    if not key:
        return False
    start = r"(?<![\w.])" if key[0].isalnum() else ""
    end = ""
    if key[-1].isdigit():
        end = r"(?![\w.%])"
    elif key[-1].isalpha():
        end = r"(?:e?s)?(?!\w)"
    return re.search(start + re.escape(key) + end, text) is not None
