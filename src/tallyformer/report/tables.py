"""Tables for one run or for two side by side: a measure becomes one column, or two and their
difference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

MISSING = "–"


@dataclass(frozen=True)
class Measure:
    """A column of numbers.

    Attributes:
        title: the column's heading.
        show: number to text.
        compare: two numbers to the text of the difference column; None for no such column.
    """

    title: str
    show: Callable[[Any], str]
    compare: Callable[[Any, Any], str] | None = None


@dataclass(frozen=True)
class Heading:
    """A heading cell over `span` columns."""

    text: str
    span: int = 1


@dataclass(frozen=True)
class TableRow:
    """A row: its heading and cells; a row without cells is the heading of a group."""

    label: str
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Ready to print: all texts are made, none is escaped.

    Attributes:
        caption: what the table shows.
        corner: heading of the first column.
        groups: headings over several columns; empty for one run.
        columns: headings of the columns.
        rows: in order.
        note: printed below.
    """

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    groups: tuple[Heading, ...] = ()
    note: str = ""

    @property
    def width(self) -> int:
        """Columns in all, the row headings' included."""
        return 1 + len(self.columns)

    @property
    def starts(self) -> frozenset[int]:
        """Numbers of the columns that start a group, from 0."""
        ends = itertools.accumulate(heading.span for heading in self.groups)
        return frozenset(end - heading.span for end, heading in zip(ends, self.groups, strict=True))


@dataclass
class TableBuilder:
    """Collects rows of one value a measure and run.

    Attributes:
        runs: names of the runs, one or two.
        measures: what is shown for each.
    """

    caption: str
    corner: str
    runs: Sequence[str]
    measures: Sequence[Measure]
    rows: list[TableRow] = field(default_factory=list)

    def group(self, label: str) -> None:
        """Start a group of rows."""
        self.rows.append(TableRow(label))

    def add(self, label: str, values: Sequence[Sequence[Any]]) -> None:
        """Add a row: for each measure the values of all runs; None where there is none."""
        cells: list[str] = []
        for measure, of_runs in zip(self.measures, values, strict=True):
            cells += [_shown(measure.show, value) for value in of_runs]
            if self._compares(measure):
                cells.append(_difference(measure, *of_runs))
        self.rows.append(TableRow(label, tuple(cells)))

    def table(self, note: str = "") -> Table | None:
        """The table; None if no row has a cell."""
        if not any(row.cells for row in self.rows):
            return None
        if len(self.runs) == 1:
            columns = tuple(measure.title for measure in self.measures)
            return Table(self.caption, self.corner, columns, tuple(self.rows), note=note)
        groups, titles = [], []
        for measure in self.measures:
            below = [*self.runs, *(["difference"] if self._compares(measure) else [])]
            groups.append(Heading(measure.title, len(below)))
            titles += below
        return Table(
            self.caption, self.corner, tuple(titles), tuple(self.rows), tuple(groups), note
        )

    def _compares(self, measure: Measure) -> bool:
        return len(self.runs) == 2 and measure.compare is not None


def _shown(show: Callable[[Any], str], value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    return show(value)


def _difference(measure: Measure, first: Any, second: Any) -> str:
    assert measure.compare is not None
    if first is None or second is None:
        return MISSING
    return measure.compare(first, second)


def fixed(places: int, unit: str = "") -> Callable[[float], str]:
    """Numbers with this many decimals and thousands commas."""
    return lambda value: f"{value:,.{places}f}{unit}"


def signed(places: int, unit: str = "") -> Callable[[float, float], str]:
    """Second minus first, with its sign."""
    return lambda first, second: _with_sign(second - first, places) + unit


def signed_and_relative(places: int) -> Callable[[float, float], str]:
    """Second minus first, with its sign and in percent of the first."""

    def show(first: float, second: float) -> str:
        absolute = _with_sign(second - first, places)
        return f"{absolute} ({signed_percent(first, second)})" if first else absolute

    return show


def signed_percent(first: float, second: float) -> str:
    """Second minus first in percent of the first, which is not 0."""
    return _with_sign(100 * (second / first - 1), 1) + "%"


def share_text(share: float) -> str:
    """A share in percent: 81.2%."""
    return f"{100 * share:.1f}%"


def interval_text(interval: tuple[float, float]) -> str:
    """An interval of shares: 79.8% to 83.7%."""
    return " to ".join(map(share_text, interval))


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 5 s, 2 h 7 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _with_sign(value: float, places: int) -> str:
    text = f"{value:+,.{places}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else f"{0:.{places}f}"
