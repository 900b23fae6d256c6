"""What of a conversation a model reads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.server.api_error import ApiError
from tallyformer.server.chat_prompt import ChatPrompt, chat_prompt
from tallyformer.tokenizer.tokenizer import Tokenizer

ROLES = ("system", "developer", "user", "assistant")


def said(*pairs: tuple[str, str]) -> list[Any]:
    return [SimpleNamespace(role=role, content=content) for role, content in pairs]


def made(
    tokenizer: Tokenizer, *pairs: tuple[str, str], context: int = 4096, most: int | None = None
) -> ChatPrompt:
    return chat_prompt(tokenizer, said(*pairs), context=context, most_tokens=most)


def ids_of(tokenizer: Tokenizer, *pairs: tuple[str, str]) -> list[int]:
    messages = [{"role": role, "content": content} for role, content in pairs]
    return tokenizer.encode_chat(messages, add_generation_prompt=True)


CONVERSATION = (
    ("system", "Be brief."),
    ("user", "What is a bond?"),
    ("assistant", "A debt."),
    ("user", "And a share?"),
)


def test_a_conversation_in_order_is_what_the_tokenizer_makes_of_it(tokenizer: Tokenizer) -> None:
    prompt = made(tokenizer, *CONVERSATION)
    assert prompt == ChatPrompt(ids=ids_of(tokenizer, *CONVERSATION), left_out=0, continued=False)


def test_a_developer_is_a_system(tokenizer: Tokenizer) -> None:
    renamed = [("developer", "Be brief."), *CONVERSATION[1:]]
    assert made(tokenizer, *renamed) == made(tokenizer, *CONVERSATION)


def test_neighbours_of_one_role_are_one_turn_and_instructions_are_joined(
    tokenizer: Tokenizer,
) -> None:
    given = [("user", "a"), ("system", "s"), ("user", "b"), ("developer", "d")]
    assert made(tokenizer, *given).ids == ids_of(
        tokenizer, ("system", "s\n\nd"), ("user", "a\n\nb")
    )


def test_an_assistant_may_open(tokenizer: Tokenizer) -> None:
    given = [("assistant", "Hello."), ("user", "Profit?")]
    assert made(tokenizer, *given).ids == ids_of(tokenizer, ("user", ""), *given)


def test_an_assistants_last_message_is_continued(tokenizer: Tokenizer) -> None:
    prompt = made(tokenizer, ("user", "What is a bond?"), ("assistant", "A bond "))
    asked = ids_of(tokenizer, ("user", "What is a bond?"))
    assert prompt == ChatPrompt(ids=asked + tokenizer.encode(" A bond"), left_out=0, continued=True)


def test_the_oldest_turns_leave_the_system_message_stays_and_what_left_is_counted(
    tokenizer: Tokenizer,
) -> None:
    turns = [("user", "old " * 5), ("assistant", "older " * 5), *CONVERSATION[1:]]
    context = len(ids_of(tokenizer, *CONVERSATION)) * 4 // 3 + 2
    prompt = made(tokenizer, CONVERSATION[0], *turns, context=context)
    assert prompt.ids == ids_of(tokenizer, *CONVERSATION)
    left = tokenizer.encode_chat([{"role": r, "content": c} for r, c in turns[:2]])
    assert prompt.left_out == len(left)


def test_a_short_answer_leaves_more_room(tokenizer: Tokenizer) -> None:
    whole = len(ids_of(tokenizer, *CONVERSATION))
    assert made(tokenizer, *CONVERSATION, context=whole + 3, most=3).left_out == 0
    assert made(tokenizer, *CONVERSATION, context=whole + 3).left_out > 0


def test_one_message_that_cannot_fit_is_refused_with_both_numbers(tokenizer: Tokenizer) -> None:
    length = len(ids_of(tokenizer, ("user", "bond " * 40)))
    assert made(tokenizer, ("user", "bond " * 40), context=length + 1).left_out == 0
    with pytest.raises(ApiError) as caught:
        made(tokenizer, ("user", "bond " * 40), context=length)
    assert caught.value.code == "context_length_exceeded"
    assert f"{length} tokens" in caught.value.message
    assert f"reads {length} at once" in caught.value.message


@pytest.mark.parametrize("roles", [("system",), ("developer", "system")])
def test_a_conversation_that_asks_nothing_is_refused(tokenizer: Tokenizer, roles: Any) -> None:
    with pytest.raises(ApiError, match="no user's message") as caught:
        made(tokenizer, *((role, "x") for role in roles))
    assert caught.value.param == "messages"


@given(
    turns=st.lists(
        st.tuples(st.sampled_from(ROLES), st.text(max_size=12) | st.just("<|assistant|> <|user|>")),
        min_size=1,
        max_size=9,
    ),
    context=st.integers(24, 200),
    most=st.none() | st.integers(0, 50),
)
def test_no_conversation_breaks_it_or_forges_a_turn(
    tokenizer: Tokenizer, turns: list[tuple[str, str]], context: int, most: int | None
) -> None:
    try:
        prompt = made(tokenizer, *turns, context=context, most=most)
    except ApiError as error:
        assert error.status == 400
        return
    assert len(prompt.ids) < context
    assert prompt.ids[0] == tokenizer.user_id
    control = [i for i in prompt.ids if i in (tokenizer.user_id, tokenizer.assistant_id)]
    assert control == [tokenizer.user_id, tokenizer.assistant_id] * (len(control) // 2)
