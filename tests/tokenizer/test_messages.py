"""Messages in every form that people try: read as they are meant, or refused with the fix."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tallyformer.errors import UsageError
from tallyformer.tokenizer import Tokenizer
from tallyformer.tokenizer.messages import read_messages

USER = {"role": "user", "content": "What is a bond?"}
ANSWER = {"role": "assistant", "content": "A loan."}
PARTS = [{"type": "text", "text": "What is"}, {"type": "text", "text": "a bond?"}]
IMAGE = {"type": "image_url", "image_url": {"url": "x.png"}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("What is a bond?", [USER]),
        (USER, [USER]),
        ([USER], [USER]),
        ((USER, ANSWER), [USER, ANSWER]),
        ((m for m in (USER, ANSWER)), [USER, ANSWER]),
        ([{**USER, "name": None, "tool_calls": []}], [USER]),
        ([{"role": "user", "content": PARTS}], [{**USER, "content": "What is\na bond?"}]),
        ([{"role": "user", "content": tuple(PARTS[:1])}], [{**USER, "content": "What is"}]),
    ],
)
def test_what_is_meant_without_doubt_is_read(given: Any, expected: list[dict[str, str]]) -> None:
    assert read_messages(given) == expected


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "role and text": (lambda: [{"role": "user", "text": "x"}], "the keys role, text"),
    "ShareGPT": (lambda: [{"from": "human", "value": "x"}], "the keys from, value"),
    "a row of messages": (lambda: {"messages": [USER]}, "a dictionary with the keys messages"),
    "no keys": (lambda: [{}], r"the keys \(none\)"),
    "content None": (lambda: [{"role": "user", "content": None}], "type NoneType"),
    "content a number": (lambda: [{"role": "user", "content": 3}], "type int"),
    "no parts": (lambda: [{"role": "user", "content": []}], "type list"),
    "an image": (lambda: [{"role": "user", "content": [*PARTS, IMAGE]}], "image_url"),
    "parts as texts": (lambda: [{"role": "user", "content": ["a"]}], "type list"),
    "texts": (lambda: ["What is a bond?"], "message 0 is 'What is a bond.' .a str."),
    "a pair": (lambda: [("user", "x")], r"message 0 is \('user', 'x'\)"),
    "several conversations": (lambda: [[USER], [USER]], "message 0 is .*a list"),
    "objects": (lambda: [SimpleNamespace(role="user", content="x")], "a SimpleNamespace"),
    "tool calls": (lambda: [{**USER, "tool_calls": [1]}], "more than role and content.*tool_calls"),
    "bytes": (lambda: b"x", "a bytes"),
    "nothing": (lambda: None, "messages are None"),
    "a number": (lambda: 5, r"messages are 5 \(a int\)"),
    "empty": (list, "no user message"),
    "an empty generator": (lambda: iter(()), "no user message"),
    "an unknown role": (lambda: [{"role": "human", "content": "x"}], "role 'human' where 'user'"),
    "a role that is not a text": (lambda: [{"role": ["user"], "content": "x"}], r"role \['user'\]"),
    "two users": (lambda: [USER, USER], "message 1 has role 'user' where 'assistant' is due"),
    "a system message inside": (
        lambda: [USER, {"role": "system", "content": "x"}, USER],
        "message 1 has role 'system' where 'assistant' is due",
    ),
    "two system messages": (
        lambda: [{"role": "system", "content": "x"}] * 2 + [USER],
        "message 1 has role 'system' where 'user' is due",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_conversation_is_named_on_one_line(tokenizer: Tokenizer, name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(UsageError, match=message) as caught:
        tokenizer.encode_chat(make(), add_generation_prompt=True)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_whatever_is_long_is_quoted_short(tokenizer: Tokenizer) -> None:
    for given in ([("x\n" * 10_000,)], [{"role": "r" * 10_000, "content": "x"}], ["x" * 10_000]):
        with pytest.raises(UsageError) as caught:
            tokenizer.encode_chat(given)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
