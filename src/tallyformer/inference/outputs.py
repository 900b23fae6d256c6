"""What generation gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]
"""`stop`: the model's end-of-text, a stop string or a stop token. `length`: `max_tokens`."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """The answer to one prompt.

    Attributes:
        text: the generated text, without the prompt, control tokens or the stop string.
        token_ids: every generated id, those of the end-of-text or stop string included.
        finish_reason: why generation ended.
        prompt_token_ids: the prompt's ids, as they were given.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_token_ids: list[int]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Part of a streamed answer; all pieces' texts and ids, joined, are those of `Output`.

    Attributes:
        text: new text; empty at most in the last piece.
        token_ids: the ids generated since the piece before.
        finish_reason: None except in the last piece.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None


def joined(prompt_ids: Iterable[int], pieces: Iterable[Piece]) -> Output:
    """All pieces of a finished answer as one output."""
    parts = list(pieces)
    reason = parts[-1].finish_reason
    assert reason is not None
    return Output(
        text="".join(piece.text for piece in parts),
        token_ids=[token_id for piece in parts for token_id in piece.token_ids],
        finish_reason=reason,
        prompt_token_ids=list(prompt_ids),
    )


def without_first_space(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces of an answer without the white space it begins with.

    The chat format has a space before an answer, which the model generates.
    """
    begun = False
    waiting: list[int] = []
    for piece in pieces:
        text = piece.text if begun else piece.text.lstrip()
        begun = begun or bool(text)
        if text or piece.finish_reason:
            yield dataclasses.replace(piece, text=text, token_ids=[*waiting, *piece.token_ids])
            waiting = []
        else:
            waiting += piece.token_ids
