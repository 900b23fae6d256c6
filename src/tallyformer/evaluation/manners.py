"""Does the model know how to talk? Greetings, thanks, off-topic questions and follow-ups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tallyformer.evaluation.answers import Ask
from tallyformer.evaluation.facts import contains_key_fact
from tallyformer.evaluation.responses import spread

if TYPE_CHECKING:
    from tallyformer.corpus.manners import Manner, Turns

FOLLOW_UPS = 100
"""Follow-ups that are asked, spread evenly over all; each needs the conversation before it."""


@dataclass(frozen=True)
class MannerAnswer:
    """The model's answer to a held-out phrasing, and whether it is of the kind that is expected.

    Attributes:
        kind: greeting, thanks, goodbye, identity, unclear, off-topic or follow-up.
        question: what the user said; of a follow-up both questions.
        answer: the model's.
        expected: the answer in training.
        right: whether the answer holds what is expected.
    """

    kind: str
    question: str
    answer: str
    expected: str
    right: bool


def ask_manners(held_out: Sequence[tuple[Manner, Turns]], ask: Ask) -> list[MannerAnswer]:
    """Ask held-out phrasings; before a follow-up stands the fact, rightly answered."""
    single = [(manner, turns) for manner, turns in held_out if manner.fact is None]
    follow_ups = [(manner, turns) for manner, turns in held_out if manner.fact is not None]
    asked = [*single, *spread(follow_ups, FOLLOW_UPS)]
    answers = ask([_messages(turns) for _, turns in asked])
    return [
        MannerAnswer(
            kind=manner.kind,
            question=" ".join(turns[::2]),
            answer=answer,
            expected=manner.answer,
            right=contains_key_fact(answer, manner.expected),
        )
        for (manner, turns), answer in zip(asked, answers, strict=True)
    ]


def _messages(turns: Turns) -> list[dict[str, str]]:
    return [
        {"role": ("user", "assistant")[number % 2], "content": content}
        for number, content in enumerate(turns)
    ]
