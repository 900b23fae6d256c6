"""The plots of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tallyformer.bench.measuring import Cell, Variant
from tallyformer.bench.summary import Spread, Summary
from tallyformer.report.html import PlotGroup
from tallyformer.report.plots import SERIES, Line, Plot, line_plot

Of = Callable[[Summary], float | None]


def variant_plots(variant: Variant) -> list[PlotGroup]:
    """All plots of one variant that have points."""
    grid, loads = variant.grid, variant.loads
    groups = [
        ("Prompt length", _by_length(grid)),
        ("Streams", _by_streams(grid)),
        ("Load", _by_load(loads)),
    ]
    drawn = [(name, [p for p in plots if p is not None]) for name, plots in groups]
    return [PlotGroup(name, plots, []) for name, plots in drawn if plots]


def _by_length(grid: Sequence[Cell]) -> list[Plot | None]:
    lengths = {cell.prompt_tokens for cell in grid}
    if len(lengths) < 2:
        return []
    x = "tokens of the prompt"
    return [
        line_plot(
            "Time to the first token",
            _lines(grid, _streams, lambda c: c.prompt_tokens[0], _median("ttft_ms")),
            y_label="ms, median",
            x_label=x,
            log=True,
            limits=(0, None),
            salt="length",
        ),
        line_plot(
            "Tokens per second",
            _lines(grid, _streams, lambda c: c.prompt_tokens[0], _tokens),
            y_label="tokens/s, all streams",
            x_label=x,
            limits=(0, None),
            salt="length",
        ),
    ]


def _by_streams(grid: Sequence[Cell]) -> list[Plot | None]:
    if len({cell.streams for cell in grid}) < 2:
        return []
    measures: list[tuple[str, str, Of]] = [
        ("Tokens per second", "tokens/s, all streams", _tokens),
        ("Time to the first token", "ms, median", _median("ttft_ms")),
        ("Inter-token latency", "ms, median", _median("itl_ms")),
    ]
    return [
        line_plot(
            title,
            _lines(grid, _length, lambda c: c.streams or 0, of),
            y_label=unit,
            x_label="streams",
            limits=(0, None),
            salt="streams",
        )
        for title, unit, of in measures
    ]


def _by_load(loads: Sequence[Cell]) -> list[Plot | None]:
    if not loads:
        return []
    x = "load, % of the capacity"
    shares = [_percent(cell) for cell in loads]
    goodput = [
        Line("sent", shares, [c.summary.requests / c.summary.seconds for c in loads]),
        Line("good", shares, [c.summary.goodput for c in loads]),
    ]
    return [
        _percentiles("Time to the first token", loads, "ttft_ms", x),
        _percentiles("Inter-token latency", loads, "itl_ms", x),
        _percentiles("End to end", loads, "end_to_end_ms", x),
        line_plot(
            "Goodput", goodput, y_label="requests/s", x_label=x, limits=(0, None), salt="load"
        ),
    ]


def _percentiles(title: str, loads: Sequence[Cell], field: str, x_label: str) -> Plot | None:
    lines = []
    for percent in (50, 95, 99):
        points = [
            (_percent(cell), value)
            for cell in loads
            if (value := _percentile(getattr(cell.summary, field), percent)) is not None
        ]
        name = "median" if percent == 50 else f"{percent}th percentile"
        lines.append(Line(name, [x for x, _ in points], [y for _, y in points]))
    return line_plot(
        title, lines, y_label="ms", x_label=x_label, log=True, limits=(0, None), salt="load"
    )


def _lines(
    cells: Sequence[Cell],
    label: Callable[[Cell], str],
    x: Callable[[Cell], float],
    y: Of,
) -> list[Line]:
    """One for each label, at most as many as there are colours."""
    points: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        value = y(cell.summary)
        if value is not None:
            points.setdefault(label(cell), []).append((x(cell), value))
    kept = list(points.items())
    if len(kept) > SERIES:
        kept = [kept[round(i * (len(kept) - 1) / (SERIES - 1))] for i in range(SERIES)]
    return [
        Line(name, [p[0] for p in sorted(found)], [p[1] for p in sorted(found)])
        for name, found in kept
    ]


def _streams(cell: Cell) -> str:
    return "1 stream" if cell.streams == 1 else f"{cell.streams} streams"


def _length(cell: Cell) -> str:
    return f"prompts of {cell.prompt_tokens[0]}"


def _percent(cell: Cell) -> float:
    return round(100 * (cell.load or 0.0), 2)


def _tokens(summary: Summary) -> float | None:
    return summary.tokens_per_second or None


def _median(field: str) -> Of:
    return lambda summary: _percentile(getattr(summary, field), 50)


def _percentile(found: Spread | None, percent: int) -> float | None:
    return found.percentiles.get(percent) if found else None
