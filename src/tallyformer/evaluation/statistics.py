"""How sure a measured share or difference is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

ENOUGH = 20
"""Observations from which on a verdict is drawn; of fewer, an interval itself is uncertain."""
Z_95 = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""


@dataclass(frozen=True)
class Proportion:
    """How many were right, of how many asked."""

    right: int
    asked: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.asked:
            raise ValueError(f"{self.right} right of {self.asked} asked cannot be")

    @property
    def share(self) -> float:
        """Right / asked; NaN if nothing was asked."""
        return self.right / self.asked if self.asked else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the true share."""
        return wilson_interval(self.right, self.asked)


def shares_by_group(verdicts: Iterable[tuple[str, bool]]) -> dict[str, Proportion]:
    """How many are right of each group, groups in alphabetical order.

    Args:
        verdicts: the group of each answer, and whether the answer is right.
    """
    groups: dict[str, list[bool]] = {}
    for group, right in verdicts:
        groups.setdefault(group, []).append(right)
    return {name: Proportion(sum(of), len(of)) for name, of in sorted(groups.items())}


def wilson_interval(right: int, asked: int, z: float = Z_95) -> tuple[float, float]:
    """Interval that holds the true share with about the confidence of `z`.

    Unlike p +- z sqrt(p (1 - p) / n) it stays inside [0, 1] and is not empty at 0 or n right.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Returns:
        (low, high); (0, 1) if nothing was asked.
    """
    if asked == 0:
        return 0.0, 1.0
    share, square = right / asked, z * z
    centre = (share + square / (2 * asked)) / (1 + square / asked)
    spread = math.sqrt(share * (1 - share) / asked + square / (4 * asked * asked))
    reach = z * spread / (1 + square / asked)
    # At 0 and n right one end is 0 or 1 exactly; the formula misses it by a rounding error.
    low = 0.0 if right == 0 else centre - reach
    high = 1.0 if right == asked else centre + reach
    return low, high


@dataclass(frozen=True)
class Difference:
    """A difference of two means with its 95% interval."""

    value: float
    low: float
    high: float

    def sign(self, observations: int) -> int | None:
        """-1 or 1 if the interval lies on one side of 0, else 0; None if they are too few."""
        if observations < ENOUGH:
            return None
        return (self.low > 0) - (self.high < 0)


def bootstrap_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
) -> Difference:
    """mean(first) - mean(second) with a percentile interval (Efron 1979).

    The two samples are independent: each is resampled on its own. For measurements in pairs
    (the same question asked of two models) pass the differences as `first` and [0.0] as `second`.

    Raises:
        ValueError: a sample is empty.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not (a.size and b.size):
        raise ValueError("a mean needs at least one value in each sample")
    means = [
        _resampled_mean(a, generator) - _resampled_mean(b, generator) for _ in range(resamples)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(a.mean() - b.mean()), float(low), float(high))


def bootstrap_mean_change(
    sums: Sequence[float] | np.ndarray,
    counts: Sequence[int] | np.ndarray,
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
) -> Difference:
    """sum(sums) / sum(counts) with a percentile interval (Efron 1979), resampling both together.

    Args:
        sums: (N,) by passage: how much more one model needs for it than another, in nats.
        counts: (N,) its tokens.

    Raises:
        ValueError: there is no passage.
    """
    a, n = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if not a.size:
        raise ValueError("a mean needs at least one value")
    ratios = []
    for _ in range(resamples):
        drawn = generator.integers(0, a.size, a.size)
        ratios.append(a[drawn].sum() / n[drawn].sum())
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Difference(float(a.sum() / n.sum()), float(low), float(high))


def _resampled_mean(sample: np.ndarray, generator: np.random.Generator) -> float:
    return float(sample[generator.integers(0, sample.size, sample.size)].mean())
