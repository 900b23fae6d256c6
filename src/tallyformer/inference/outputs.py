"""What generation gives back."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]
"""`stop`: the model's end-of-text, a stop string or a stop token. `length`: `max_tokens`."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was, by the model's own distribution: log-softmax of its logits.

    Attributes:
        id: the token's.
        logprob: its natural log-probability.
        alternatives: the most probable ids with theirs, in falling order, as many as wanted.
    """

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Output:
    """The answer to one prompt, or one of its samples.

    Attributes:
        text: the generated text, without the prompt, control tokens or the stop string.
        token_ids: every generated id, those of the end-of-text or stop string included.
        finish_reason: why generation ended.
        prompt_token_ids: the prompt's ids, as they were given.
        index: which of the `n` samples, from 0 on.
        logprobs: one for each of `token_ids`; empty unless `logprobs` is set.
        prompt_logprobs: one for each of `prompt_token_ids`, None for the first and for those
            that are beyond the context; empty unless `prompt_logprobs` is set, and in all samples
            but the first.
        guessed, accepted: tokens that `look_up` guessed, and how many of them were right.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_token_ids: list[int]
    index: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)
    guessed: int = 0
    accepted: int = 0


@dataclass(slots=True, kw_only=True)
class Piece:
    """Part of a streamed answer; all pieces' texts and ids, joined, are those of `Output`.

    One is made for almost every id, so it is not frozen, which takes three times as long.

    Attributes:
        text: new text; empty at most in the last piece.
        token_ids: the ids generated since the piece before.
        finish_reason: None except in a sample's last piece.
        index: of which of the `n` samples.
        logprobs: one for each of `token_ids`, or none at all.
        prompt_logprobs: as in `Output`, in the first piece.
        guessed, accepted: since the piece before, as in `Output`.
        queue_seconds: how long the sample waited for a place; in its first piece alone.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)
    guessed: int = 0
    accepted: int = 0
    queue_seconds: float | None = field(default=None, compare=False)


def merged(pieces: Sequence[Piece]) -> Piece:
    """One or more pieces of one sample, one after another, as one."""
    if len(pieces) == 1:
        return pieces[0]
    return Piece(
        text="".join(piece.text for piece in pieces),
        token_ids=[token_id for piece in pieces for token_id in piece.token_ids],
        finish_reason=pieces[-1].finish_reason,
        index=pieces[0].index,
        logprobs=[logprob for piece in pieces for logprob in piece.logprobs],
        prompt_logprobs=[logprob for piece in pieces for logprob in piece.prompt_logprobs],
        guessed=sum(piece.guessed for piece in pieces),
        accepted=sum(piece.accepted for piece in pieces),
        queue_seconds=pieces[0].queue_seconds,
    )


def by_sample(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """The pieces of each sample, in the order of their indices."""
    samples: dict[int, list[Piece]] = defaultdict(list)
    for piece in pieces:
        samples[piece.index].append(piece)
    return [samples[index] for index in sorted(samples)]


def joined(prompt_ids: Iterable[int], pieces: Iterable[Piece]) -> Output:
    """All pieces of a finished sample as one output."""
    whole = merged(list(pieces))
    assert whole.finish_reason is not None
    return Output(
        text=whole.text,
        token_ids=whole.token_ids,
        finish_reason=whole.finish_reason,
        prompt_token_ids=list(prompt_ids),
        index=whole.index,
        logprobs=whole.logprobs,
        prompt_logprobs=whole.prompt_logprobs,
        guessed=whole.guessed,
        accepted=whole.accepted,
    )


class FirstSpace:
    """Takes the white space that an answer begins with out of its pieces.

    The chat format has a space before an answer, which the model generates.
    """

    def __init__(self) -> None:
        self._begun: set[int] = set()
        self._waiting: dict[int, list[Piece]] = defaultdict(list)

    def without(self, piece: Piece) -> Piece | None:
        """What remains of the next piece, with the ids of those of which nothing did."""
        if piece.index in self._begun:
            return piece
        text = piece.text.lstrip()
        waiting = self._waiting[piece.index]
        waiting.append(dataclasses.replace(piece, text=text))
        if not text and not piece.finish_reason:
            return None
        self._begun.add(piece.index)
        return merged(waiting)


def without_first_space(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces of an answer without the white space it begins with; see `FirstSpace`."""
    space = FirstSpace()
    for piece in pieces:
        if (rest := space.without(piece)) is not None:
            yield rest
