"""Laws of what a model sees of a conversation that is longer than its context."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.conversation import Chat
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams

CONTEXT = 32  # of the folders in conftest.py
ROOM = CONTEXT - CONTEXT // 4
SHORT = SamplingParams(max_tokens=3, seed=0, ignore_eos=True)
SCRIPTS = {
    "Chinese": "什么是复利它和单利有什么区别请举例说明",
    "Thai": "ดอกเบี้ยทบต้นคืออะไร",
    "emoji": "👩‍👩‍👧‍👦💶🏦📈🇩🇪",
    "mixed": "Zinsen für Jürgen: 5 € 利息 💶",
}


def _content(llm: LLM, prompt: list[int]) -> str:
    return llm.tokenizer.decode(prompt)


@pytest.mark.parametrize("script", SCRIPTS)
@given(length=st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_a_question_of_any_script_and_length_keeps_as_much_of_its_end_as_fits(
    tally: LLM, script: str, length: int
) -> None:
    question = (SCRIPTS[script] * 20)[:length].strip()
    prompt = tally.chat_prompt(question)
    kept = _content(tally, prompt).strip()
    assert kept and question.endswith(kept)
    assert prompt[0] == tally.tokenizer.user_id and prompt[-1] == tally.tokenizer.assistant_id
    if kept != question:
        assert ROOM - 3 <= len(prompt) <= ROOM, "only a part of a character may be missing"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_long_question_in_a_chat_is_never_an_empty_one(tally: LLM, script: str) -> None:
    session = Chat(tally, SHORT, "Be!")
    for length in (20, 63, 400):
        question = (SCRIPTS[script] * 40)[:length].strip()
        next(iter(session.ask(question)))
        said = _content(tally, session.prompt())
        assert said.strip().startswith("Be!")
        end = said.split("Be!", 1)[1].strip()
        assert end and question.endswith(end)
        session.reset()


def test_the_oldest_whole_turns_leave_first_and_the_system_message_stays(tally: LLM) -> None:
    system = {"role": "system", "content": "Be!"}
    turns = [
        {"role": role, "content": f"{number}?"}
        for number in range(6)
        for role in ("user", "assistant")
    ][:-1]
    prompts = {
        kept: tally.tokenizer.encode_chat([system, *turns[-kept:]], add_generation_prompt=True)
        for kept in range(1, len(turns) + 1, 2)
    }
    assert len(prompts[11]) > ROOM
    most = max(kept for kept, ids in prompts.items() if len(ids) <= ROOM)
    assert 1 < most < 11
    assert tally.chat_prompt([system, *turns]) == prompts[most]


def test_the_longest_conversations_are_answered(llm: LLM) -> None:
    long = {"role": "user", "content": "利息" * 300}
    for messages in ([long], [long, {"role": "assistant", "content": "x" * 900}, long]):
        assert llm.chat(messages, SHORT).token_ids


def test_a_system_message_that_leaves_no_room_is_refused_by_every_way_to_chat(tally: LLM) -> None:
    system = "profit over revenue is the margin. " * 9
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "bond?"}]
    with pytest.raises(InvalidRequestError, match=r"system: \d+ tokens, .* reads 32 .*Shorten"):
        tally.chat(messages)
    with pytest.raises(InvalidRequestError, match=r"system: \d+ tokens"):
        Chat(tally, SHORT, system)


@pytest.mark.parametrize("wrong", [b"bond?", None, 3, ["bond?"]])
def test_a_question_or_instructions_that_are_no_text_are_refused(tally: LLM, wrong: Any) -> None:
    with pytest.raises(InvalidRequestError, match="question: must be a text"):
        Chat(tally, SHORT).ask(wrong)
    if wrong is not None:
        with pytest.raises(InvalidRequestError, match="system: must be a text"):
            Chat(tally, SHORT, wrong)
