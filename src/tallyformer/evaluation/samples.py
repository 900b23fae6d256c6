"""A few answers of the final model, for a person to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tallyformer.data.pairs import Pair
from tallyformer.evaluation.answers import Ask
from tallyformer.evaluation.responses import spread

if TYPE_CHECKING:
    from tallyformer.corpus.questions import Fact

COUNT = 5
"""Samples that are taken where the recipe names none."""
BEGINNING_WORDS = 8
"""Words of a text that a model is given to continue."""
CONTINUATION_WORDS = 24
"""Words behind them that are shown beside the model's."""


@dataclass(frozen=True)
class Question:
    """What is asked, and what the data answer; "" where they do not."""

    text: str
    expected: str = ""


@dataclass(frozen=True)
class Sample:
    """A question, the model's answer, and what the data answer; "" where they do not."""

    question: str
    answer: str
    expected: str = ""


def take_samples(questions: Sequence[Question], ask: Ask) -> list[Sample]:
    """Ask every question."""
    answers = ask([question.text for question in questions])
    return [Sample(q.text, a, q.expected) for q, a in zip(questions, answers, strict=True)]


def questions_of_facts(facts: Sequence[Fact]) -> list[Question]:
    """Held-out questions spread evenly over the primer's facts, one a fact."""
    askable = [fact for fact in facts if fact.held_out]
    return [Question(fact.held_out[0], fact.answer) for fact in spread(askable, COUNT)]


def questions_of_pairs(pairs: Sequence[Pair]) -> list[Question]:
    """Held-out pairs, spread evenly over all."""
    return [Question(pair.question, pair.response) for pair in spread(pairs, COUNT)]


def beginnings_of_texts(texts: Iterable[str], count: int = COUNT) -> list[Question]:
    """The first words of the first few texts that continue behind them, and how they continue."""
    found: list[Question] = []
    for text in texts:
        words = text.split()
        if len(words) > BEGINNING_WORDS:
            rest = words[BEGINNING_WORDS : BEGINNING_WORDS + CONTINUATION_WORDS]
            found.append(Question(" ".join(words[:BEGINNING_WORDS]), " ".join(rest)))
        if len(found) == count:
            break
    return found
