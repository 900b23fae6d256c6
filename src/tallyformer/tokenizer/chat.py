"""The chat format: its ids, its loss mask and its Jinja template, side by side.

    <|user|> {content} <|assistant|> {content}<|endoftext|>

Contents are stripped. A system message is put before the first user's, with an empty line
between them. Trained are the assistant's content, with its leading space, and the end-of-text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tallyformer.errors import UsageError
from tallyformer.quoting import quoted
from tallyformer.tokenizer.messages import FORM, Message, read_messages

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
CONTROL_TOKENS = (END_OF_TEXT, PAD, USER, ASSISTANT)
"""In the order in which missing ones are appended to a vocabulary."""

AFTER_SYSTEM = "\n\n"
"""What stands between a system message and the first user's."""

_ORDER = "messages are an optional system message, then user and assistant in turn"
_ENDS_WITH_ANSWER = "a generation prompt follows a user message; the last one is not"


@dataclass(frozen=True)
class ControlIds:
    """Ids of the four control tokens."""

    eot: int
    pad: int
    user: int
    assistant: int


def encode_turns(
    messages: Any,
    encode: Callable[[str], list[int]],
    control: ControlIds,
    add_generation_prompt: bool,
) -> tuple[list[int], list[bool]]:
    """Ids of a conversation and, for each, whether it is trained.

    Raises:
        UsageError: a role is unknown or out of turn, or these are not messages.
    """
    ids: list[int] = []
    trained: list[bool] = []
    contents = fold_system(messages)
    for turn, content in enumerate(contents):
        if turn % 2 == 0:
            piece = [control.user, *encode(f" {content} ")]
            trained += [False] * len(piece)
        else:
            answer = [*encode(f" {content}"), control.eot]
            piece = [control.assistant, *answer]
            trained += [False] + [True] * len(answer)
        ids += piece
    if add_generation_prompt:
        if len(contents) % 2 == 0:
            raise UsageError(f"chat: {_ENDS_WITH_ANSWER}. Add a user message")
        ids.append(control.assistant)
        trained.append(False)
    return ids, trained


def fold_system(messages: Any) -> list[str]:
    """Stripped contents of the turns, user first, the system message within the first.

    Args:
        messages: whatever `read_messages` reads.

    Raises:
        UsageError: a role is unknown or out of turn, or these are not messages.
    """
    system, turns = split_system(messages)
    contents = [turn["content"].strip() for turn in turns]
    if system is not None:
        contents[0] = f"{system}{AFTER_SYSTEM}{contents[0]}".strip()
    return contents


def split_system(messages: Any) -> tuple[str | None, list[Message]]:
    """The stripped system message, if there is one, and the turns after it.

    Raises:
        UsageError: a role is unknown or out of turn, or these are not messages.
    """
    turns = read_messages(messages)
    system = None
    if turns and turns[0]["role"] == "system":
        system = turns.pop(0)["content"].strip()
    if not turns:
        raise UsageError(f"chat: no user message; {_ORDER}. {FORM}")
    for number, turn in enumerate(turns):
        expected = "assistant" if number % 2 else "user"
        if turn["role"] != expected:
            raise UsageError(
                f"chat: message {number + (system is not None)} has role "
                f"{quoted(turn['role'])} where {expected!r} is due; {_ORDER}"
            )
    return system, turns


def chat_template(control_tokens: Iterable[str], *, training_marks: bool = True) -> str:
    """Jinja template for `apply_chat_template`, with `generation` markers for its mask.

    Unlike `encode_turns`, a template goes through text, where a spelled-out control token would
    become one. So it breaks every such spelling in a content with a space, "<|user|>" to
    "< |user|>"; text without such spellings gets the same ids on both ways.

    Args:
        control_tokens: every special token of the vocabulary; none that `unbreakable` gives.
        training_marks: with the `generation` markers, which only transformers knows.
    """
    opened, closed = ("{%- generation %}", "{%- endgeneration %}") if training_marks else ("", "")
    harmless = "".join(
        f" | replace({_literal(token)}, {_literal(_broken(token))})"
        for token in sorted(control_tokens)
    )
    lines = (
        "{%- set first = 1 if messages and messages[0]['role'] == 'system' else 0 %}",
        "{%- if messages | length <= first %}",
        f"{{{{- raise_exception('no user message; {_ORDER}') }}}}",
        "{%- endif %}",
        "{%- for message in messages %}",
        "{%- if message['content'] is not string %}",
        "{{- raise_exception('a content is not text') }}",
        "{%- endif %}",
        "{%- endfor %}",
        "{%- for message in messages[first:] %}",
        "{%- if message['role'] != ('assistant' if loop.index0 % 2 else 'user') %}",
        f"{{{{- raise_exception('{_ORDER}') }}}}",
        "{%- endif %}",
        "{%- set content = message['content'] | trim %}",
        "{%- if first and loop.first %}",
        "{%- set content = (messages[0]['content'] | trim ~ '\\n\\n' ~ content) | trim %}",
        "{%- endif %}",
        f"{{%- set content = content{harmless} %}}",
        "{%- if message['role'] == 'user' %}",
        f"{{{{- '{USER} ' ~ content ~ ' ' }}}}",
        "{%- else %}",
        f"{{{{- '{ASSISTANT}' }}}}",
        f"{opened}{{{{- ' ' ~ content ~ '{END_OF_TEXT}' }}}}{closed}",
        "{%- endif %}",
        "{%- endfor %}",
        "{%- if add_generation_prompt %}",
        "{%- if messages[-1]['role'] == 'assistant' %}",
        f'{{{{- raise_exception("{_ENDS_WITH_ANSWER}") }}}}',
        "{%- endif %}",
        f"{{{{- '{ASSISTANT}' }}}}",
        "{%- endif %}",
    )
    return "\n".join(lines)


def unbreakable(special: Iterable[str], added: Iterable[str]) -> Iterator[str]:
    """Tokens that the template could not keep apart from a content.

    It writes a space into each spelling, and contents stand between spaces, except that
    `<|endoftext|>` follows an answer at once. So the spelling of a special token needs two
    characters and no space, and no other token may hold a control token or end in the beginning
    of one.

    Args:
        special: every special token of the vocabulary.
        added: the same and all others that are cut out of text before the merges.
    """
    yield from (token for token in special if len(token) < 2 or " " in token)
    for token in set(added) - set(CONTROL_TOKENS):
        if any(c in token or _overlap(token, c) for c in CONTROL_TOKENS):
            yield token


def _broken(token: str) -> str:
    """The spelling with a space in it, such that replacing it once leaves it nowhere.

    The space makes no new spelling, as no special token has one. A spelling that a replaced one
    overlaps would survive where it begins behind the space; there a second space parts the two.
    """
    return f"{token[0]} {token[1:]}" + (" " if _overlap(token, token) else "")


def _overlap(first: str, second: str) -> bool:
    """Whether some text ends the first token, but not with all of it, and begins the second."""
    return any(second.startswith(first[start:]) for start in range(1, len(first)))


def _literal(text: str) -> str:
    """A text as a string of Jinja, which reads escapes as Python does."""
    return json.dumps(text, ensure_ascii=False)
