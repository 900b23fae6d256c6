"""The part of a conversation that a model sees: what does not fit leaves, oldest first."""

from __future__ import annotations

from typing import Any

from tallyformer.errors import InvalidRequestError, UsageError
from tallyformer.tokenizer.chat import split_system
from tallyformer.tokenizer.messages import Message
from tallyformer.tokenizer.tokenizer import Tokenizer

_NO_QUESTION = {"role": "user", "content": ""}


def fit_messages(
    tokenizer: Tokenizer, messages: Any, *, context: int, answer_share: int
) -> list[int]:
    """Ids of the newest whole turns that fit, up to where the assistant's answer begins.

    The system message always stays. A last question that is too long by itself loses its
    beginning, id by id, cut where a character begins.

    Args:
        tokenizer: the model's.
        messages: as in `LLM.chat`.
        context: ids that the model reads at once.
        answer_share: 1/answer_share of the context is left to the answer.

    Raises:
        InvalidRequestError: these are not messages, the system message takes more than half of
            the room, or there is no room for a question.
    """
    room = context - context // answer_share
    try:
        system, turns = split_system(messages)
        first = [] if system is None else [{"role": "system", "content": system}]
        newest = tokenizer.encode_chat([*first, *turns[-1:]], add_generation_prompt=True)
    except UsageError as error:
        raise InvalidRequestError(str(error)) from None
    check_system(tokenizer, system, context=context, answer_share=answer_share)
    if len(newest) > room:
        return _end_of(tokenizer, system or "", newest, room)
    return _with_older(tokenizer, first, turns, newest, room)


def check_system(tokenizer: Tokenizer, system: Any, *, context: int, answer_share: int) -> None:
    """Refuse instructions that fill more than half of what the answer leaves of the context.

    Raises:
        InvalidRequestError: they do, or are not text.
    """
    if system is None:
        return
    if not isinstance(system, str):
        raise InvalidRequestError(
            f"system: must be a text; it is of type {type(system).__name__}. Give a str"
        )
    length = len(tokenizer.encode_chat([{"role": "system", "content": system}, _NO_QUESTION]))
    most = (context - context // answer_share) // 2
    if length > most:
        raise InvalidRequestError(
            f"system: {length} tokens, but the model reads {context} at once and at most {most} "
            "of them may be instructions. Shorten them"
        )


def _with_older(
    tokenizer: Tokenizer, system: list[Message], turns: list[Message], ids: list[int], room: int
) -> list[int]:
    for start in range(len(turns) - 3, -1, -2):
        longer = tokenizer.encode_chat([*system, *turns[start:]], add_generation_prompt=True)
        if len(longer) > room:
            break
        ids = longer
    return ids


def _end_of(tokenizer: Tokenizer, system: str, ids: list[int], room: int) -> list[int]:
    """The prompt for a question that is too long: as much of its end as fits."""
    prompt = ids[1:-1]
    first = tokenizer.system_length(prompt, system)
    start = tokenizer.character_from(prompt, first + len(ids) - room)
    if not tokenizer.decode(prompt[start:]).strip():
        raise InvalidRequestError(
            f"chat: a prompt may have {room} tokens here, which leaves no room for a question. "
            "Use a model with a longer context"
        )
    return [ids[0], *prompt[:first], *prompt[start:], ids[-1]]
