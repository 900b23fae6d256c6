"""Any number of rows of numbers in a bounded number of buckets.

Each bucket stands for `width` rows that followed each other. When there are too many buckets, every
two become one and the width doubles; so all buckets are equally wide, and what was seen of a curve
does not depend on how often one looked.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

MOST_BUCKETS = 1000
"""A screen has hardly more points beside each other."""
MOST_COLUMNS = 40
LONGEST_NAME = 60
LARGEST = 1e300
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class MetricsRow:
    """A step and its numbers; None, or no entry, where there is none."""

    step: int
    values: Mapping[str, float | None]


class Column:
    """One number of each bucket: sum and count of what there was, the lowest and the highest."""

    def __init__(self, buckets: int) -> None:
        self.sums = array("d", [0.0]) * buckets
        self.counts = array("q", [0]) * buckets
        self.lows = array("d", [math.inf]) * buckets
        self.highs = array("d", [-math.inf]) * buckets

    def begin(self) -> None:
        """A new bucket, empty."""
        self.sums.append(0.0)
        self.counts.append(0)
        self.lows.append(math.inf)
        self.highs.append(-math.inf)

    def add(self, value: float) -> None:
        """To the last bucket."""
        self.sums[-1] += value
        self.counts[-1] += 1
        self.lows[-1] = min(self.lows[-1], value)
        self.highs[-1] = max(self.highs[-1], value)

    def halve(self) -> None:
        """Make every two buckets one."""
        self.sums = array("d", [a + b for a, b in _pairs(self.sums)])
        self.counts = array("q", [a + b for a, b in _pairs(self.counts)])
        self.lows = array("d", map(min, _pairs(self.lows)))
        self.highs = array("d", map(max, _pairs(self.highs)))

    def means(self, start: int) -> list[float | None]:
        """From a bucket on; None where a bucket has no number."""
        return [
            _short(total / count) if count else None
            for total, count in zip(self.sums[start:], self.counts[start:], strict=True)
        ]

    def extremes(self, start: int) -> tuple[list[float | None], list[float | None]]:
        """The lowest and the highest, from a bucket on."""
        return [_short(v) for v in self.lows[start:]], [_short(v) for v in self.highs[start:]]


class MetricsTable:
    """Rows in order of their steps.

    Args:
        most: buckets, an even number.

    Attributes:
        steps: of each bucket's last row.
        columns: by name, in the order in which they came.
        width: rows of a bucket; the last one may have fewer.
        changes: how often anything but the last bucket was changed, or a column added.
    """

    def __init__(self, most: int = MOST_BUCKETS) -> None:
        self._most = most
        self._in_last = 0
        self.steps = array("q")
        self.columns: dict[str, Column] = {}
        self.width = 1
        self.changes = 0

    @property
    def complete(self) -> int:
        """Buckets that will not change any more, unless `changes` does."""
        return len(self.steps) - (1 if self._in_last else 0)

    def add(self, row: MetricsRow) -> bool:
        """Add a row; False if its step is not above the one before, which adds nothing."""
        if self.steps and row.step <= self.steps[-1]:
            return False
        if self._in_last == 0:
            self.steps.append(row.step)
            for column in self.columns.values():
                column.begin()
        self.steps[-1] = row.step
        for name, value in row.values.items():
            into = self._column(name) if value is not None else None
            if into is not None and value is not None:
                into.add(value)
        self._in_last += 1
        if self._in_last == self.width:
            self._in_last = 0
            if len(self.steps) == self._most:
                self._halve()
        return True

    def _column(self, name: str) -> Column | None:
        if name not in self.columns and len(self.columns) < MOST_COLUMNS:
            self.columns[name] = Column(len(self.steps))
            self.changes += 1
        return self.columns.get(name)

    def _halve(self) -> None:
        self.steps = self.steps[1::2]
        for column in self.columns.values():
            column.halve()
        self.width *= 2
        self.changes += 1


def _pairs(values: Sequence[_Number]) -> zip[tuple[_Number, _Number]]:
    return zip(values[0::2], values[1::2], strict=True)


def _short(value: float) -> float | None:
    """Nine digits, as no plot and no table shows more; None for what is not finite."""
    return float(f"{value:.9g}") if math.isfinite(value) else None
