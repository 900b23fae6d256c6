"""A conversation as the ids that a model reads: the oldest whole turns leave until it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tallyformer.server.api_error import ApiError
from tallyformer.tokenizer.messages import Message
from tallyformer.tokenizer.tokenizer import Tokenizer

_BETWEEN = "\n\n"
_ANSWER_SHARE = 4
"""1/4 of the context is left to the answer, or less where a shorter one is asked for."""


class GivenMessage(Protocol):
    """A message of a request."""

    @property
    def role(self) -> str:
        """Who says it."""

    @property
    def content(self) -> str:
        """What is said."""


@dataclass(frozen=True, kw_only=True)
class ChatPrompt:
    """What the model reads.

    Attributes:
        ids: up to where the answer begins, or continues.
        left_out: tokens of turns that did not fit.
        continued: whether they end within the assistant's answer.
    """

    ids: list[int]
    left_out: int
    continued: bool


def chat_prompt(
    tokenizer: Tokenizer,
    messages: Sequence[GivenMessage],
    *,
    context: int,
    most_tokens: int | None,
    field: str = "messages",
) -> ChatPrompt:
    """The newest whole turns that leave room for the answer; the system message always stays.

    Args:
        tokenizer: the model's.
        messages: of any roles in any order; an assistant's last one is continued.
        context: ids that the model reads at once.
        most_tokens: how long the answer may be, if that is known.
        field: of the request, that holds the messages.

    Raises:
        ApiError: 400, the last message does not fit, or there is none to answer.
    """
    system, turns = _in_turn(messages)
    begun = turns.pop()["content"] if turns and turns[-1]["role"] == "assistant" else None
    if not turns:
        raise ApiError(400, f"{field}: there is no user's message to answer", param=field)
    answer = [] if begun is None else tokenizer.encode(f" {begun.strip()}")
    pairs = [turns[start : start + 2] for start in range(0, len(turns), 2)]
    plain = [tokenizer.encode_chat(pair, len(pair) == 1) for pair in pairs]

    def from_pair(start: int) -> list[int]:
        """All ids, if this pair is the first that is kept."""
        first = tokenizer.encode_chat([*system, *pairs[start]], len(pairs[start]) == 1)
        return [*first, *(i for ids in plain[start + 1 :] for i in ids), *answer]

    start = len(pairs) - 1
    ids = from_pair(start)
    if len(ids) >= context:
        raise too_long(len(ids), context, field)
    wanted = context // _ANSWER_SHARE
    room = context - (wanted if most_tokens is None else min(wanted, max(1, most_tokens)))
    while start > 0 and len(longer := from_pair(start - 1)) <= room:
        start, ids = start - 1, longer
    return ChatPrompt(ids=ids, left_out=sum(map(len, plain[:start])), continued=bool(answer))


def conversation_ids(
    tokenizer: Tokenizer,
    messages: Sequence[GivenMessage],
    *,
    begins: bool | None = None,
    continues: bool | None = None,
) -> list[int]:
    """All ids of a conversation up to where its answer begins, or continues.

    Args:
        tokenizer: the model's.
        messages: of any roles in any order.
        begins: whether an answer begins at the end; by default unless one is continued there.
        continues: whether the assistant's last message is left open, as by default, or ended.

    Raises:
        ApiError: 400, nothing can begin or be continued there, or there is no user's message.
    """
    endless = 1 << 62
    prompt = chat_prompt(tokenizer, messages, context=endless, most_tokens=None)
    if prompt.continued and begins:
        raise _out_of_turn("add_generation_prompt", "the last message is the assistant's")
    if prompt.continued:
        return [*prompt.ids, tokenizer.eot_id] if continues is False else prompt.ids
    if continues:
        raise _out_of_turn("continue_final_message", "the last message is not the assistant's")
    return prompt.ids[:-1] if begins is False else prompt.ids


def _out_of_turn(field: str, when: str) -> ApiError:
    return ApiError(400, f"{field}: cannot be true when {when}. Omit it", param=field)


def in_turn(messages: Sequence[GivenMessage]) -> list[Message]:
    """A conversation as the model is given it: a system message or none, then turns."""
    system, turns = _in_turn(messages)
    return [*system, *turns]


def too_long(length: int, context: int, param: str) -> ApiError:
    """400 for a prompt that leaves no room for an answer."""
    return ApiError(
        400,
        f"{param}: {length} tokens, but this model reads {context} at once, the answer's first "
        "included. Shorten it",
        param=param,
        code="context_length_exceeded",
    )


def _in_turn(messages: Sequence[GivenMessage]) -> tuple[list[Message], list[Message]]:
    """The system message, if there is one, and turns in which user and assistant alternate.

    What clients send in other orders is joined: all instructions into one, neighbours of the same
    role into one turn. A conversation that the assistant opens has an empty question before it.
    """
    instructions = [m.content for m in messages if m.role in ("system", "developer")]
    turns: list[Message] = []
    for message in messages:
        if message.role not in ("user", "assistant"):
            continue
        if turns and turns[-1]["role"] == message.role:
            turns[-1] = {**turns[-1], "content": turns[-1]["content"] + _BETWEEN + message.content}
        elif not turns and message.role == "assistant":
            opened = {"role": "assistant", "content": message.content}
            turns = [{"role": "user", "content": ""}, opened]
        else:
            turns.append({"role": message.role, "content": message.content})
    joined = _BETWEEN.join(text for text in instructions if text.strip())
    return [{"role": "system", "content": joined}] if joined else [], turns
