"""In which order the sequences of several sources are seen.

Every source is an endless stream: a shuffled pass over all its sequences, then another, shuffled
again. An epoch takes each source's share from its stream, continuing where the last epoch ended,
and shuffles what it took. So a source with a small share is seen whole in the course of several
epochs, and one with a large share several times in one.

E sequences of an epoch, N positions asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tallyformer.errors import DataError
from tallyformer.keyed_random import permutation

_EPOCH, _PASS = 0, 1


def epoch_shares(
    sequences: Mapping[str, int], weights: Mapping[str, float] | None
) -> dict[str, int]:
    """How many sequences of each source an epoch has.

    An epoch is as long as all sources with a weight together. Without weights each source has
    what it has; with weights each has its part by weight, rounded by largest remainders, but at
    least 1.

    Args:
        sequences: sequences by source, each at least 1.
        weights: relative shares of the tokens; a source without one takes no part.

    Returns:
        Sequences by source, in the order of `sequences`; only sources that take part.
    """
    if weights is None:
        return dict(sequences)
    taking_part = {name: weights[name] for name in sequences if weights.get(name)}
    length = sum(sequences[name] for name in taking_part)
    total = sum(taking_part.values())
    exact = {name: length * weight / total for name, weight in taking_part.items()}
    return rounded(exact, length)


def rounded(exact: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers near the exact ones, each at least 1, by largest remainders.

    Args:
        exact: numbers above 0 with about that sum.
        total: what the result adds up to, or the number of names if that is more.
    """
    total = max(total, len(exact))
    parts = {name: max(1, int(value)) for name, value in exact.items()}
    while excess := sum(parts.values()) - total:
        above = {name: part - exact[name] for name, part in parts.items()}
        if excess > 0:
            parts[max((n for n in parts if parts[n] > 1), key=above.__getitem__)] -= 1
        else:
            parts[min(parts, key=above.__getitem__)] += 1
    return parts


@dataclass(frozen=True)
class Epoch:
    """One pass over the mixture; only sources that take part.

    Attributes:
        sequences: whole sequences that each source has.
        shares: how many of each source's sequences an epoch takes.
    """

    sequences: Mapping[str, int]
    shares: Mapping[str, int]

    @classmethod
    def of(
        cls, tokens: Mapping[str, int], context: int, weights: Mapping[str, float] | None
    ) -> Epoch:
        """The epoch of a training.

        Args:
            tokens: training ids by source.
            context: T, inputs of a sequence; it needs T + 1 ids.
            weights: as for `epoch_shares`; without any, a source that has no whole sequence is
                left out.

        Raises:
            DataError: a source with a weight has no whole sequence, or no source has one.
        """
        sequences = {name: max(0, ids - 1) // context for name, ids in tokens.items()}
        if weights is None:
            sequences = {name: count for name, count in sequences.items() if count}
        for name, count in sequences.items():
            if not count and weights and weights.get(name):
                raise _too_few(f"source {name!r} has", tokens[name], context)
        if not any(sequences.values()):
            raise _too_few("prepare kept", sum(tokens.values()), context)
        shares = epoch_shares(sequences, weights)
        return cls({name: sequences[name] for name in shares}, shares)

    @property
    def length(self) -> int:
        """Sequences of an epoch."""
        return sum(self.shares.values())

    def passes(self, sequences: float) -> dict[str, float]:
        """How often each source is seen when this many sequences of the mixture are read."""
        return {
            name: sequences / self.length * share / self.sequences[name]
            for name, share in self.shares.items()
        }


def _too_few(what: str, tokens: int, context: int) -> DataError:
    return DataError(
        f"{what} {tokens} training tokens; one sequence needs {context + 1}. Give prepare more "
        "text, or lower model.max_position_embeddings"
    )


class MixtureOrder:
    """The seeded order of an endless training run over several sources.

    Args:
        sequences: how many sequences each source has.
        shares: how many of each source an epoch takes; the same sources, in the same order.
        seed: decides every permutation.
    """

    def __init__(self, sequences: Sequence[int], shares: Sequence[int], seed: int) -> None:
        self._sequences = list(sequences)
        self._shares = list(shares)
        self._ends = np.cumsum(shares)
        self._seed = seed
        self._cache: dict[tuple[int, ...], np.ndarray] = {}
        self.epoch_length = int(self._ends[-1])

    def locate(self, positions_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Source numbers (N,) and sequence numbers (N,) at positions of the endless run."""
        sources_N = np.empty(len(positions_N), dtype=np.int64)
        sequences_N = np.empty(len(positions_N), dtype=np.int64)
        epochs_N = positions_N // self.epoch_length
        self._forget(int(epochs_N[0]))
        for epoch in np.unique(epochs_N).tolist():
            here = epochs_N == epoch
            slots = self._permutation(_EPOCH, epoch)[positions_N[here] % self.epoch_length]
            sources = np.searchsorted(self._ends, slots, side="right")
            sources_N[here] = sources
            sequences_N[here] = self._in_streams(epoch, slots, sources)
        return sources_N, sequences_N

    def _in_streams(self, epoch: int, slots: np.ndarray, sources: np.ndarray) -> np.ndarray:
        result = np.empty(len(slots), dtype=np.int64)
        for source in np.unique(sources).tolist():
            here = sources == source
            share, size = self._shares[source], self._sequences[source]
            first = int(self._ends[source]) - share
            passes, inside = np.divmod(slots[here] - first + epoch * share, size)
            found = np.empty(len(passes), dtype=np.int64)
            for number in np.unique(passes).tolist():
                of_pass = passes == number
                found[of_pass] = self._permutation(_PASS, number, source)[inside[of_pass]]
            result[here] = found
        return result

    def _permutation(self, kind: int, number: int, source: int = 0) -> np.ndarray:
        key = (kind, number, source)
        if key not in self._cache:
            size = self.epoch_length if kind == _EPOCH else self._sequences[source]
            order = permutation(size, "mixture", self._seed, *key)
            self._cache[key] = order.astype(np.int32 if size < 2**31 else np.int64)
        return self._cache[key]

    def _forget(self, epoch: int) -> None:
        """Drop permutations that the epoch and its successors do not use."""
        for key in list(self._cache):
            kind, number, source = key
            first_pass = epoch * self._shares[source] // self._sequences[source]
            if number < (epoch if kind == _EPOCH else first_pass):
                del self._cache[key]
