"""Messages as callers write them, read into role and content.

    "What is a bond?"                                   one user's message
    [{"role": "user", "content": "What is a bond?"}]    a conversation
    [{"role": "user", "content": [{"type": "text", "text": "What is a bond?"}]}]

Everything else is an error that says what was given and how it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tallyformer.errors import UsageError
from tallyformer.quoting import quoted

Message = dict[str, str]

FORM = 'Write messages as [{"role": "user", "content": "What is a bond?"}]'
_KEYS = {"role", "content"}


def read_messages(given: Any) -> list[Message]:
    """Role and content of each message; roles are read, not checked.

    Args:
        given: a text, which is one user's message; one message; or messages in any iterable. A
            content is a text, or a list of text parts, which are joined by line breaks.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if isinstance(given, Mapping):
        if not given.keys() >= _KEYS:
            raise UsageError(f"chat: messages are a dictionary with {_names(given)}. {FORM}")
        given = [given]
    if isinstance(given, bytes | bytearray) or not isinstance(given, Iterable):
        raise UsageError(f"chat: messages are {_described(given)}. {FORM}")
    return [_message(number, message) for number, message in enumerate(given)]


def content_text(content: Any) -> str | None:
    """The text of a content, its text parts joined by line breaks; None if it is not a text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple) or not content:
        return None
    texts = [_part(part) for part in content]
    return None if None in texts else "\n".join(text for text in texts if text is not None)


def _part(part: Any) -> str | None:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


def _message(number: int, message: Any) -> Message:
    where = f"chat: message {number}"
    if not isinstance(message, Mapping):
        raise UsageError(f"{where} is {_described(message)}, not a dictionary. {FORM}")
    if not message.keys() >= _KEYS:
        raise UsageError(
            f"{where} needs the keys role and content; it has {_names(message)}. {FORM}"
        )
    more = {name: value for name, value in message.items() if name not in _KEYS and value}
    if more:
        raise UsageError(f"{where} has more than role and content: {_names(more)}. Remove that")
    content = content_text(message["content"])
    if content is None:
        raise UsageError(
            f"{where} has a content of type {type(message['content']).__name__}, "
            f"{quoted(message['content'])}; give text, or parts as "
            '[{"type": "text", "text": "..."}]'
        )
    return {"role": message["role"], "content": content}


def _names(message: Mapping[Any, Any]) -> str:
    return "the keys " + (", ".join(map(str, list(message)[:6])) or "(none)")


def _described(value: Any) -> str:
    """A value as a message quotes it, on one line."""
    return quoted(value) if value is None else f"{quoted(value)} (a {type(value).__name__})"
