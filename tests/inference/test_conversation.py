"""Laws of a conversation: its prompt always fits, and its turns alternate however answers end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.conversation import ANSWER_SHARE, Chat
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams

CONTEXT = 32  # of the folders in conftest.py
ROOM = CONTEXT - CONTEXT // ANSWER_SHARE
SHORT = SamplingParams(max_tokens=4, seed=0, ignore_eos=True)
_ENDINGS = ("exhausted", "left", "closed", "not begun", "interrupted", "raised")


def _end(session: Chat, question: str, ending: str) -> None:
    answer = session.ask(question)
    if ending == "exhausted":
        assert list(answer)
    elif ending == "left":
        for _ in answer:
            break
    elif ending == "closed":
        next(answer)
        answer.close()  # type: ignore[attr-defined]
    elif ending == "interrupted":
        next(answer)
        session.interrupt()
    elif ending == "raised":
        next(answer)
        with pytest.raises(KeyboardInterrupt):
            answer.throw(KeyboardInterrupt)  # type: ignore[attr-defined]


@settings(deadline=None, max_examples=30)
@given(endings=st.lists(st.sampled_from(_ENDINGS), min_size=1, max_size=5))
def test_the_next_question_can_be_asked_however_the_answers_before_ended(
    tally: LLM, endings: list[str]
) -> None:
    session = Chat(tally, SHORT)
    for number, ending in enumerate(endings):
        _end(session, f"{number}?", ending)
    # encode_chat refuses turns that do not alternate.
    assert list(session.ask("bond?"))


def test_what_was_said_of_a_broken_off_answer_is_in_the_next_prompt(tally: LLM) -> None:
    session = Chat(tally, SamplingParams(max_tokens=2, seed=1, ignore_eos=True))
    said = "".join(session.ask("a?")).strip()
    answer = session.ask("b?")
    next(answer)
    expected = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": "b?"},
    ]
    assert session.prompt() == tally.chat_prompt(expected)


def test_a_question_whose_answer_never_began_is_forgotten(tally: LLM) -> None:
    session = Chat(tally, SHORT)
    session.ask("never?")
    answer = session.ask("bond?")
    next(answer)
    assert session.prompt() == tally.chat_prompt([{"role": "user", "content": "bond?"}])


@settings(deadline=None, max_examples=60)
@given(
    system=st.none() | st.text(max_size=4),
    questions=st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=4),
)
def test_the_prompt_fits_and_keeps_roles_and_instructions_whole(
    tally: LLM, system: str | None, questions: list[str]
) -> None:
    try:
        session = Chat(tally, SHORT, system)
    except InvalidRequestError:
        return
    ids = tally.tokenizer
    for question in questions:
        answer = session.ask(question)
        for _ in answer:
            prompt = session.prompt()
            assert len(prompt) <= ROOM
            roles = [i for i in prompt if i in (ids.user_id, ids.assistant_id)]
            assert roles == [ids.user_id, ids.assistant_id] * (len(roles) // 2)
            assert prompt[0] == ids.user_id and prompt[-1] == ids.assistant_id
            said = ids.decode(prompt).strip()
            assert said.startswith((system or "").strip())


def test_a_question_that_is_too_long_keeps_its_end(tally: LLM) -> None:
    session = Chat(tally, SHORT, "Be!")
    question = "".join(f" bond {n}" for n in range(100)) + " the end?"
    next(session.ask(question))
    prompt = session.prompt()
    text = tally.tokenizer.decode(prompt).strip()
    assert ROOM - 4 <= len(prompt) <= ROOM
    assert text.startswith("Be!") and text.endswith("the end?")


def test_instructions_that_leave_no_room_for_a_question_are_refused(tally: LLM) -> None:
    with pytest.raises(InvalidRequestError, match=r"system: \d+ tokens, but the model reads 32"):
        Chat(tally, SHORT, "profit over revenue is the margin. " * 9)
