"""The curves of one `metrics.jsonl`, kept up with the file and sent in parts."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from tallyformer.artifacts.json_files import parse_json
from tallyformer.monitor.inside import Unreadable, reason_of
from tallyformer.monitor.table import LARGEST, LONGEST_NAME, MetricsRow, MetricsTable
from tallyformer.monitor.tail import Tail
from tallyformer.monitor.words import plain

KINDS = ("train", "validation")
MOST_BYTES = 8 << 20
"""That one look reads; the next one reads on."""
_LARGEST_STEP = 1 << 53
"""What a number in a browser holds exactly."""


@dataclass(frozen=True)
class Numbers:
    """One column of a part: the mean of each bucket, and the extremes where buckets are wide."""

    name: str
    means: list[float | None]
    lows: list[float | None] | None
    highs: list[float | None] | None


@dataclass(frozen=True)
class CurvePart:
    """Buckets of a table from one of them on.

    Attributes:
        start: the first of them; what the reader has from there on is replaced.
        width: rows that a bucket stands for.
    """

    kind: str
    start: int
    width: int
    steps: list[int]
    columns: list[Numbers]


@dataclass(frozen=True)
class CurveNews:
    """What a reader does not have yet.

    Attributes:
        cursor: to be given the next time.
        fresh: what the reader has is void.
        skipped: lines so far that are none of metrics, or whose step is not above the one before.
        left: bytes of the file that are not read yet.
        problem: why the file cannot be read; "" if it can.
    """

    cursor: str
    fresh: bool
    skipped: int
    left: int
    problem: str
    parts: list[CurvePart]


class Curve:
    """One file. Several threads may look at once.

    Args:
        opened: gives the file, open for reading.
    """

    def __init__(self, opened: Callable[[], BinaryIO]) -> None:
        self._tail = Tail(opened)
        self._lock = threading.Lock()
        self._name = secrets.token_hex(4)
        self._restarts = 0
        self._begin()

    def _begin(self) -> None:
        self._tables = {kind: MetricsTable() for kind in KINDS}
        self._skipped = self._left = 0
        self.newest: dict[str, Any] = {}

    def look(self, cursor: str = "", most_bytes: int = MOST_BYTES) -> CurveNews:
        """Read on, and say what a reader with this cursor does not have."""
        with self._lock:
            problem = self._read(most_bytes)
            return self._since(cursor, problem)

    def _read(self, most_bytes: int) -> str:
        try:
            news = self._tail.read(most_bytes)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return reason_of(error)
        except Unreadable as reason:
            return str(reason)
        if news.restarted:
            self._restarts += 1
            self._begin()
        self._left = news.left
        for line in news.lines:
            if not self._take(line):
                self._skipped += 1
        return ""

    def _take(self, line: bytes | None) -> bool:
        found = line_of(line)
        if found is None:
            return False
        kind, row = found
        if kind == "train":
            self.newest = {"step": row.step, **row.values}
        return self._tables[kind].add(row)

    def _since(self, cursor: str, problem: str) -> CurveNews:
        changes = sum(table.changes for table in self._tables.values())
        version = f"{self._name}.{self._restarts}.{changes}"
        known, _, counts = cursor.partition(":")
        starts = _counts(counts) if known == version else None
        parts = [
            _part(kind, table, start)
            for (kind, table), start in zip(
                self._tables.items(), starts or [0] * len(KINDS), strict=True
            )
        ]
        ends = ".".join(str(table.complete) for table in self._tables.values())
        return CurveNews(
            cursor=f"{version}:{ends}",
            fresh=starts is None,
            skipped=self._skipped,
            left=self._left,
            problem=problem,
            parts=parts,
        )


def line_of(text: bytes | None) -> tuple[str, MetricsRow] | None:
    """Kind and row of a line of metrics; None if it is none."""
    if text is None:
        return None
    try:
        line = parse_json(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or line.get("kind") not in KINDS:
        return None
    step = line.get("step")
    if type(step) is not int or not 0 <= step <= _LARGEST_STEP:
        return None
    values = {
        plain(name): plotted(value)
        for name, value in line.items()
        if name not in ("kind", "step") and len(name) <= LONGEST_NAME
    }
    return line["kind"], MetricsRow(step, values)


def plotted(value: Any) -> float | None:
    """A number that a plot can show; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LARGEST else None


def _counts(text: str) -> list[int] | None:
    counts = text.split(".")
    if len(counts) != len(KINDS) or not all(c.isascii() and c.isdigit() for c in counts):
        return None
    return [int(count[:9]) for count in counts]


def _part(kind: str, table: MetricsTable, start: int) -> CurvePart:
    columns = []
    for name, column in table.columns.items():
        lows, highs = column.extremes(start) if table.width > 1 else (None, None)
        columns.append(Numbers(name, column.means(start), lows, highs))
    return CurvePart(kind, start, table.width, table.steps[start:].tolist(), columns)
