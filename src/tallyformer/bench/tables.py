"""The tables of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from tallyformer.bench.measuring import Cell, Variant
from tallyformer.bench.summary import Spread, Summary
from tallyformer.report.tables import MISSING, Heading, Table, TableRow, share_text

_LATENCIES = (
    ("time to first token, ms", "ttft_ms"),
    ("inter-token latency, ms", "itl_ms"),
    ("end to end, ms", "end_to_end_ms"),
)
_SHOWN = (50, 95, 99)


def grid_table(variant: Variant, caption: str) -> Table | None:
    """The closed loops: prompt lengths in groups, one row for each number of streams."""
    if not variant.grid:
        return None
    rows: list[TableRow] = []
    for cell in variant.grid:
        heading = f"prompts of {cell.prompt_tokens[0]} tokens"
        if not any(row.label == heading for row in rows):
            rows.append(TableRow(heading))
        rows.append(TableRow(str(cell.streams), _cells(cell, speeds=True)))
    return Table(
        caption,
        "streams",
        ("answers", "failed", "all", "one stream", *_percents()),
        tuple(rows),
        (Heading("requests", 2), Heading("tokens/s", 2), *_headings()),
        _note([cell.summary for cell in variant.grid]),
    )


def load_table(variant: Variant, caption: str) -> Table | None:
    """The open loops, one row for each load."""
    if not variant.loads:
        return None
    rows = [
        TableRow(
            f"{cell.load:.0%}",
            (
                number_text(cell.summary.requests / cell.summary.seconds),
                number_text(cell.summary.goodput),
                MISSING if cell.summary.good_share is None else share_text(cell.summary.good_share),
                *_cells(cell, speeds=False),
            ),
        )
        for cell in variant.loads
    ]
    return Table(
        caption,
        "load",
        ("sent", "good", "share", "answers", "failed", *_percents()),
        tuple(rows),
        (
            Heading("goodput, a second", 3),
            Heading("requests", 2),
            *_headings(),
        ),
        _note([cell.summary for cell in variant.loads]),
    )


def failures_table(variants: Sequence[Variant]) -> Table | None:
    """How many requests failed, and how; None if none did."""
    rows = []
    for variant in variants:
        for cell in variant.cells:
            for kind, count in cell.summary.failures.items():
                said = next((r["detail"] for r in cell.raw if r["failure"] == kind), "")
                label = f"{cell.title}: {kind}" + (f" ({said})" if said else "")
                rows.append(TableRow(label, (str(count), str(cell.summary.requests))))
    if not rows:
        return None
    return Table("Failed requests", "where and how", ("failed", "of"), tuple(rows))


def details_table(variant: Variant, caption: str) -> Table | None:
    """What says how far the other numbers may be trusted."""
    if not variant.cells:
        return None
    rows = [
        TableRow(
            cell.title + (" (capacity)" if cell is variant.capacity else ""),
            (
                number_text(cell.summary.seconds),
                number_text(cell.summary.prompt_tokens),
                number_text(cell.summary.output_tokens),
                _shown(cell.summary.longest_pause_ms, 50),
                _shown(cell.summary.longest_pause_ms, 99),
                _shown(cell.summary.sent_late_ms, 50),
                _shown(cell.summary.sent_late_ms, 99),
            ),
        )
        for cell in variant.cells
    ]
    return Table(
        caption,
        "cell",
        ("measured", "prompt", "answer", "50%", "99%", "50%", "99%"),
        tuple(rows),
        (
            Heading("seconds", 1),
            Heading("tokens, mean", 2),
            Heading("longest pause in an answer, ms", 2),
            Heading("sent late, ms", 2),
        ),
    )


def number_text(value: float | None) -> str:
    """With three digits at least."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(cell: Cell, *, speeds: bool) -> tuple[str, ...]:
    summary = cell.summary
    cells = [str(summary.requests - summary.failed), str(summary.failed)]
    if speeds:
        cells.append(number_text(summary.tokens_per_second or None))
        cells.append(number_text(summary.stream_tokens_per_second))
    for _, field in _LATENCIES:
        cells += [_shown(getattr(summary, field), percent) for percent in _SHOWN]
    return tuple(cells)


def _percents() -> list[str]:
    return [f"{percent}%" for _ in _LATENCIES for percent in _SHOWN]


def _headings() -> list[Heading]:
    return [Heading(title, len(_SHOWN)) for title, _ in _LATENCIES]


def _note(summaries: Sequence[Summary]) -> str:
    if all(s.ttft_ms and 99 in s.ttft_ms.percentiles for s in summaries):
        return ""
    return (
        "A percentile is left out (–) where there are too few answers for it: the 95th needs 20, "
        "the 99th 100. More --seconds give more."
    )


def _shown(found: Spread | None, percent: int) -> str:
    return number_text(found.percentiles.get(percent) if found else None)
