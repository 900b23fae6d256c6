"""Can the model compute? Held-out worked examples, judged by their exact answer, by kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tallyformer.corpus.worked_examples import Example, contains_answer
from tallyformer.evaluation.answers import Ask


@dataclass(frozen=True)
class ArithmeticAnswer:
    """One problem with the model's answer, and whether the right number is in it."""

    kind: str
    question: str
    answer: str
    expected: str
    right: bool


def ask_arithmetic(examples: Iterable[Example], ask: Ask) -> list[ArithmeticAnswer]:
    """Ask every example; right is an answer that holds the exact number, whole."""
    asked = list(examples)
    answers = ask([example.prompt for example in asked])
    return [
        ArithmeticAnswer(
            kind=example.kind,
            question=example.prompt,
            answer=answer,
            expected=example.answer,
            right=contains_answer(answer, example.answer),
        )
        for example, answer in zip(asked, answers, strict=True)
    ]
