"""One worked example, and the rule by which an answer counts as given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Example:
    """A question with its worked answer.

    Attributes:
        id: kind, numbers and phrasing in short; two examples share it only if they are equal.
        kind: what is computed, for example "simple-interest".
        prompt: the question; it never contains the answer.
        response: short steps; the last words are the answer and a full stop.
        answer: the text that a right response contains, for example "1,250.00" or "12.50%".
        values: every number (and account) that the question was drawn from, by name; rates in
            percent.
    """

    id: str
    kind: str
    prompt: str
    response: str
    answer: str
    values: Mapping[str, Decimal | str]


@dataclass(frozen=True)
class Worked:
    """What a kind makes of its numbers: some ways to ask, the steps, the answer."""

    prompts: tuple[str, ...]
    steps: str
    conclusion: str
    """The sentence before the answer, without full stop: "The interest is $"."""
    answer: str

    @property
    def response(self) -> str:
        """Steps, then the conclusion that ends with the answer."""
        return f"{self.steps} {self.conclusion}{self.answer}."


def contains_answer(text: str, answer: str) -> bool:
    """Whether `text` contains `answer` as a whole number.

    "12.50" is in "It costs $12.50." and not in "112.50", "12.505", "1,012.50" or "-12.50". Commas
    between digits, runs of white space and case make no difference.
    """
    pattern = rf"(?<!\d)(?<!\d\.)(?<!-)(?<!-\$){re.escape(_plain(answer))}(?!\.?\d)"
    if not _plain(answer).endswith("%"):
        pattern += r"(?!%)"
    return re.search(pattern, _plain(text)) is not None


def _plain(text: str) -> str:
    text = " ".join(text.lower().replace("−", "-").split())
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
