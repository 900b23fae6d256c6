"""Conversations as data sets write them: `messages` (role, content) and ShareGPT (from, value)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tallyformer.artifacts.json_files import parse_json
from tallyformer.data.normalize import normalize
from tallyformer.data.rows import text_of
from tallyformer.errors import DataError
from tallyformer.tokenizer.messages import Message, content_text

DIALOGUE_FIELDS = ("messages", "conversations")
"""Fields that are looked for where the recipe names none."""
BETTER_ANSWER = "chosen"
"""Beside a conversation that ends with a question, in rows of JSON: the better of two answers."""

_KEYS = (("role", "content"), ("from", "value"))
_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_FORM = (
    'Write conversations as [{"role": "user", "content": "..."}, {"role": "assistant", '
    '"content": "..."}], or with from and value'
)


class Dropped(Exception):  # noqa: N818 - a row that is left out and counted, no failure
    """A conversation that cannot be learnt from; the message is the reason it is counted under."""


def read_dialogue(value: Any, field: str, where: str, better: Any = None) -> list[Message]:
    """A conversation with roles of our own, normalised: a system message or none, then turns.

    A question without an answer at the end is left out, as nothing is learnt from it.

    Args:
        value: of the row's field; a list of messages, the same as JSON, or a dictionary of lists.
        field: its name, for errors.
        where: the row's name, for errors.
        better: what the row has as `BETTER_ANSWER`.

    Raises:
        DataError: it is not a list of messages with text.
        Dropped: a role is unknown or out of turn, a content is empty, or there is no answer.
    """
    messages = [_message(m, f"{where}: {field}[{n}]") for n, m in enumerate(_list(value, where))]
    system = messages[:1] if messages and messages[0]["role"] == "system" else []
    turns = messages[len(system) :]
    if any(turn["role"] not in _ROLES.values() for turn in turns):
        raise Dropped("other_role")
    if any(turn["role"] != ("user", "assistant")[n % 2] for n, turn in enumerate(turns)):
        raise Dropped("roles_out_of_turn")
    if len(turns) % 2 and isinstance(better, str):
        turns.append({"role": "assistant", "content": normalize(better, "NFC")})
    turns = turns[: len(turns) // 2 * 2]
    if not turns:
        raise Dropped("no_answer")
    for role, reason in (("user", "empty_prompt"), ("assistant", "empty_response")):
        if any(turn["role"] == role and not turn["content"] for turn in turns):
            raise Dropped(reason)
    return [*(message for message in system if message["content"]), *turns]


def _list(value: Any, where: str) -> Sequence[Any]:
    if isinstance(value, str | bytes):
        try:
            value = parse_json(value)
        except ValueError:
            raise DataError(f"{where}: a conversation that is text, but no JSON. {_FORM}") from None
    if isinstance(value, Mapping):
        value = _from_columns(value, where)
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: a conversation of type {type(value).__name__}. {_FORM}")
    return value


def _from_columns(value: Mapping[str, Any], where: str) -> Any:
    """Messages from a dictionary of lists, as some libraries store a list of dictionaries."""
    columns = {name: cells for name, cells in value.items() if isinstance(cells, list | tuple)}
    if not any(set(keys) <= columns.keys() for keys in _KEYS):
        return value
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise DataError(f"{where}: a conversation with {listed}. Give as many of each")
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, Mapping):
        raise DataError(f"{where} is of type {type(message).__name__}. {_FORM}")
    for role_key, content_key in _KEYS:
        if role_key in message and content_key in message:
            content = message[content_key]
            text = "" if content is None else content_text(content)
            if text is None:
                raise DataError(
                    f"{where} has a {content_key} of type {type(content).__name__}. Give text"
                )
            role = str(message[role_key]).strip().lower()
            text = normalize(text_of(text, content_key, where), "NFC")
            return {"role": _ROLES.get(role, role), "content": text}
    names = ", ".join(map(str, list(message)[:6])) or "(none)"
    raise DataError(f"{where} has the keys {names}. {_FORM}")
