"""What generation gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
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


def merged(pieces: Sequence[Piece]) -> Piece:
    """One or more pieces of one answer, one after another, as one."""
    if len(pieces) == 1:
        return pieces[0]
    return Piece(
        text="".join(piece.text for piece in pieces),
        token_ids=[token_id for piece in pieces for token_id in piece.token_ids],
        finish_reason=pieces[-1].finish_reason,
    )


def joined(prompt_ids: Iterable[int], pieces: Iterable[Piece]) -> Output:
    """All pieces of a finished answer as one output."""
    whole = merged(list(pieces))
    assert whole.finish_reason is not None
    return Output(
        text=whole.text,
        token_ids=whole.token_ids,
        finish_reason=whole.finish_reason,
        prompt_token_ids=list(prompt_ids),
    )


class FirstSpace:
    """Takes the white space that an answer begins with out of its pieces.

    The chat format has a space before an answer, which the model generates.
    """

    def __init__(self) -> None:
        self._begun = False
        self._waiting: list[int] = []

    def without(self, piece: Piece) -> Piece | None:
        """What remains of the next piece, with the ids of those of which nothing did."""
        text = piece.text if self._begun else piece.text.lstrip()
        self._begun = self._begun or bool(text)
        ids, self._waiting = [*self._waiting, *piece.token_ids], []
        if text or piece.finish_reason:
            return dataclasses.replace(piece, text=text, token_ids=ids)
        self._waiting = ids
        return None


def without_first_space(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces of an answer without the white space it begins with; see `FirstSpace`."""
    space = FirstSpace()
    for piece in pieces:
        if (rest := space.without(piece)) is not None:
            yield rest
