"""In which order the sequences of several sources are seen.

Every source is an endless stream: a shuffled pass over all its sequences, then another, shuffled
anew. An epoch takes each source's share from its stream, going on where the last epoch ended,
and shuffles what it took. So a source with a small share is seen whole in the course of several
epochs, and one with a large share several times in one.

E sequences of an epoch, N positions asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

_EPOCH, _PASS = 0, 1


def epoch_shares(
    sequences: Mapping[str, int], weights: Mapping[str, float] | None
) -> dict[str, int]:
    """How many sequences of each source an epoch has.

    An epoch is as long as all sources with a weight together. Without weights each source has
    what it has; with weights each has its part by weight, rounded by largest remainders.

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
    shares = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: shares[name] - exact[name])
    for name in by_remainder[: length - sum(shares.values())]:
        shares[name] += 1
    return {name: share for name, share in shares.items() if share}


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
            order = np.random.default_rng([self._seed, *key]).permutation(size)
            self._cache[key] = order.astype(np.int32 if size < 2**31 else np.int64)
        return self._cache[key]

    def _forget(self, epoch: int) -> None:
        """Drop permutations that the epoch and its successors do not use."""
        for key in list(self._cache):
            kind, number, source = key
            first_pass = epoch * self._shares[source] // self._sequences[source]
            if number < (epoch if kind == _EPOCH else first_pass):
                del self._cache[key]
