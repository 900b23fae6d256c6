"""Small talk, off-topic questions and follow-ups: how they are asked and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tallyformer.corpus.manners import held_out_conversations
from tallyformer.evaluation.answers import greedy_answers
from tallyformer.evaluation.manners import FOLLOW_UPS, ask_manners
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams

HELD_OUT = list(held_out_conversations())


def _trained_answer(questions: Sequence[Any]) -> list[str]:
    """What a model says that has learnt all of them."""
    known = {turns: manner.answer for manner, turns in HELD_OUT}
    return [known[tuple(message["content"] for message in asked)] for asked in questions]


def test_the_answers_of_training_are_right_and_every_kind_is_asked() -> None:
    answers = ask_manners(HELD_OUT, _trained_answer)
    assert all(answer.right for answer in answers)
    kinds = Counter(answer.kind for answer in answers)
    assert kinds["follow-up"] == FOLLOW_UPS and len(kinds) == 7
    assert len({(answer.kind, answer.question) for answer in answers}) == len(answers)


@pytest.mark.parametrize("place", [-1, -2])
def test_a_model_that_repeats_what_was_said_has_no_manners(place: int) -> None:
    def repeat(questions: Sequence[Any]) -> list[str]:
        return [asked[place % len(asked)]["content"] for asked in questions]

    assert not [answer for answer in ask_manners(HELD_OUT, repeat) if answer.right]


def test_a_model_that_refuses_everything_is_right_off_topic_alone() -> None:
    refusal = next(manner.answer for manner, _ in HELD_OUT if manner.kind == "off-topic")
    answers = ask_manners(HELD_OUT, lambda questions: [refusal for _ in questions])
    assert {answer.kind for answer in answers if answer.right} == {"off-topic"}


def test_a_conversation_is_asked_as_a_chat_asks_it(model_folder: Path) -> None:
    llm = LLM.from_pretrained(model_folder, device="cpu")
    turns = next(turns for manner, turns in HELD_OUT if manner.fact)
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)
    ]
    asked = greedy_answers(llm, max_tokens=6, label="test")([messages, "What is a bond?"])
    greedy = SamplingParams(max_tokens=6, temperature=0)
    expected = [
        llm.chat(question, greedy).text.strip() for question in (messages, "What is a bond?")
    ]
    assert asked == expected
