"""Tables for one run or for two side by side: a measure becomes one column, or two and their
difference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tallyformer.report.names import short_names

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
    _rows: list[tuple[str, Sequence[Sequence[Any]]]] = field(default_factory=list)

    def group(self, label: str) -> None:
        """Start a group of rows."""
        self._rows.append((label, ()))

    def add(self, label: str, values: Sequence[Sequence[Any]]) -> None:
        """Add a row: for each measure the values of all runs; None where there is none."""
        assert len(values) == len(self.measures)
        self._rows.append((label, values))

    def table(self, note: str = "") -> Table | None:
        """The table; None if no row has a cell.

        What nobody compares and is the same of both runs in every row is one column.
        """
        filled = [values for _, values in self._rows if values]
        if not filled:
            return None
        names = short_names(self.runs)
        columns = [_columns(m, names, values) for m, values in self._by_measure(filled)]
        rows = tuple(
            TableRow(label, tuple(itertools.chain.from_iterable(map(_cells, columns, values))))
            for label, values in self._rows
        )
        if len(self.runs) == 1:
            titles = tuple(measure.title for measure in self.measures)
            return Table(self.caption, self.corner, titles, rows, note=note)
        return Table(
            self.caption,
            self.corner,
            tuple(itertools.chain.from_iterable(one.titles for one in columns)),
            rows,
            tuple(Heading(one.measure.title, len(one.titles)) for one in columns),
            note,
        )

    def _by_measure(
        self, filled: Sequence[Sequence[Sequence[Any]]]
    ) -> Iterator[tuple[Measure, list[Sequence[Any]]]]:
        for number, measure in enumerate(self.measures):
            yield measure, [values[number] for values in filled]


@dataclass(frozen=True)
class _Columns:
    """Of one measure."""

    measure: Measure
    titles: tuple[str, ...]
    as_one: bool


def _columns(measure: Measure, runs: Sequence[str], values: Sequence[Sequence[Any]]) -> _Columns:
    if len(runs) == 2 and measure.compare is not None:
        return _Columns(measure, (*runs, "difference"), False)
    if len(runs) == 2 and all(first == second for first, second in values):
        return _Columns(measure, ("both",), True)
    return _Columns(measure, tuple(runs), False)


def _cells(columns: _Columns, of_runs: Sequence[Any]) -> list[str]:
    shown = of_runs[:1] if columns.as_one else of_runs
    cells = [_shown(columns.measure.show, value) for value in shown]
    if "difference" in columns.titles[2:]:
        cells.append(_difference(columns.measure, *of_runs))
    return cells


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
