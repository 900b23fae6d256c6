"""A few questions with the model's answers, for a person to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tallyformer.evaluation.answers import Ask

if TYPE_CHECKING:
    from tallyformer.corpus.questions import Fact

DEFAULT_QUESTIONS = 5


@dataclass(frozen=True)
class Sample:
    """A question and the model's answer."""

    question: str
    answer: str


def take_samples(questions: Sequence[str], ask: Ask) -> list[Sample]:
    """Ask every question."""
    return [Sample(q, a) for q, a in zip(questions, ask(questions), strict=True)]


def default_questions(facts: Sequence[Fact], count: int = DEFAULT_QUESTIONS) -> tuple[str, ...]:
    """Held-out questions spread evenly over the primer's facts, one a fact."""
    askable = [fact for fact in facts if fact.held_out]
    step = max(1, len(askable) // count)
    return tuple(fact.held_out[0] for fact in askable[::step][:count])
