"""What the engine asks of whatever computes a model: the protocol, and its words. Loads no torch.

Two sides of one step: `compute` takes sequences on by some ids, `choose` draws an id for each row
of logits. Logits go from one to the other as they are; the engine never looks into them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tallyformer.errors import CheckpointError, InvalidRequestError, TallyFormerError
from tallyformer.inference.sampling_params import SamplingParams

Logits = Any
"""Rows of what may follow, one for each that a step's `Work` asks for, in that order."""


@dataclass(slots=True)
class Work:
    """One sequence's part of a step.

    Attributes:
        number: the sequence.
        start: how many of its ids, from position 0 on, are kept and stay so. What was kept
            beyond them is forgotten. 0 begins a sequence, whether its number is new or not.
        ids: computed now, at positions `start`, `start` + 1 and so on, and kept; one or more.
        logits: for how many of the last `ids` a row of logits is wanted: 0 for a part of a
            prompt that is not its last, else 1 to len(ids), in order of position.
    """

    number: int
    start: int
    ids: list[int]
    logits: int = 1


@dataclass(slots=True, kw_only=True)
class LogitsRow:
    """What a sampler has to know to choose an id for one row of logits, in this step alone.

    Attributes:
        params: of these, the settings that change the distribution.
        counts: how often each id was generated before this place; empty where `params` has no
            penalties.
        prompt_ids: the prompt's ids, for the repetition penalty.
        uniform: the row's random number in [0, 1); 0 where `params` is greedy. An id is drawn by
            inverting the cumulative distribution, the most probable id first where something is
            filtered, so that the same number draws the same id whatever computes it.
        given: an id that is not chosen but known, for its log-probability (scoring of prompts).
        banned: ids that are not drawn here.
        process: None, or what changes the row's logits (V,), float32, before all settings.
        allowed: None, or the only ids that may be drawn: bit i % 32 of word i // 32 stands for
            id i; uint32 (ceil(V / 32),).
        logprobs: None, or how many alternatives are wanted beside the id's own log-probability.
    """

    params: SamplingParams
    counts: Mapping[int, int]
    prompt_ids: Sequence[int]
    uniform: float
    given: int | None = None
    banned: Collection[int] = ()
    process: Callable[[np.ndarray], np.ndarray] | None = None
    allowed: np.ndarray | None = None
    logprobs: int | None = None


@dataclass(slots=True)
class Choice:
    """What follows in one row.

    Attributes:
        id: drawn, or the row's `given` one.
        logprob: its log-probability, natural, under the model's own distribution: log-softmax
            of the logits before any hook, penalty, bias, ban, temperature or filter. None where the
            row wants none.
        alternatives: the most probable ids with theirs, in falling order, as many as the row
            wants; of equal ones the smaller id first.
    """

    id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


Chosen = Choice | TallyFormerError
"""What follows in one row, or why nothing does."""


def logits_not_finite() -> CheckpointError:
    """What a row gets whose logits are NaN or infinite."""
    return CheckpointError(
        "the model's logits are not finite, so its weights are damaged or the dtype is too narrow. "
        "Load it with dtype='float32', or export the model again"
    )


def nothing_allowed() -> InvalidRequestError:
    """What a row gets whose ids are all banned, by settings or masks."""
    return InvalidRequestError("no id may follow: all are banned. Ban fewer")


class Runner(Protocol):
    """Computes logits, keeps keys and values of up to `slots` sequences, and draws.

    A row of logits depends on its own sequence's ids alone. After an error, in either method,
    the engine calls `clear` and begins all sequences again.

    Attributes:
        slots: most sequences that are kept at once.
        prefill_chunk: most ids of one sequence in a step; None: a window is computed whole.
    """

    slots: int
    prefill_chunk: int | None

    def compute(self, work: Sequence[Work]) -> Logits:
        """Compute these sequences' ids; no sequence occurs twice, others are kept as they are."""

    def choose(self, logits: Logits, rows: Sequence[LogitsRow]) -> list[Chosen]:
        """Choose an id for each row of what `compute` returned last.

        An id that has no text, because the model has more rows than the tokenizer has ids, is
        neither chosen nor an alternative, and has no part in the distribution. A row whose logits
        are not finite, or for which nothing may follow, gets an error of its own: no id that
        `banned` or `allowed` excludes is ever chosen.
        """

    def fork(self, number: int, new: int, length: int) -> None:
        """Keep the first `length` ids of a sequence as those of a new one, too; 1 or more.

        So samples of one prompt, and prompts that begin alike, share their computation.
        """

    def release(self, numbers: Collection[int]) -> None:
        """Forget these sequences, all of which are kept."""

    def clear(self) -> None:
        """Forget all, in whatever state a broken-off computation left them."""
