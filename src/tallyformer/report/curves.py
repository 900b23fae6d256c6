"""The learning curves of one stage, for one run or several over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tallyformer.report.html import PlotGroup
from tallyformer.report.names import short_names
from tallyformer.report.plots import Line, Plot, line_plot
from tallyformer.report.run_data import Curves, RunData


@dataclass(frozen=True)
class PlotKind:
    """One plot of the grid: (legend, kind of metrics line, metric) of each curve.

    `folded` plots, which say how the training went rather than what it reached, are folded away.
    """

    title: str
    y_label: str
    series: tuple[tuple[str, str, str], ...]
    log: bool = False
    limits: tuple[float, float | None] | None = None
    folded: bool = False


PLOTS = (
    PlotKind(
        "Loss",
        "nats per token",
        (("training", "train", "loss"), ("validation", "validation", "loss")),
    ),
    PlotKind(
        "Validation perplexity",
        "perplexity",
        (("validation", "validation", "perplexity"),),
        log=True,
    ),
    PlotKind(
        "Divergence from the teacher",
        "KL, nats per token",
        (("training", "train", "kl"),),
        limits=(0, None),
    ),
    PlotKind(
        "Learning rate",
        "learning rate",
        (("learning rate", "train", "learning_rate"),),
        limits=(0, None),
        folded=True,
    ),
    PlotKind(
        "Gradient norm",
        "norm before clipping",
        (("gradient norm", "train", "grad_norm"),),
        log=True,
        folded=True,
    ),
    PlotKind(
        "Speed",
        "tokens per second",
        (("tokens/s", "train", "tokens_per_second"),),
        limits=(0, None),
        folded=True,
    ),
    PlotKind(
        "Share of peak FLOP/s",
        "share",
        (("share", "train", "mfu"),),
        limits=(0, 1),
        folded=True,
    ),
    PlotKind(
        "Processor use",
        "percent",
        (("CPU", "train", "cpu_percent"), ("GPU", "train", "gpu_percent")),
        limits=(0, 105),
        folded=True,
    ),
    PlotKind(
        "Memory",
        "MB",
        (("process", "train", "memory_mb"), ("GPU", "train", "gpu_memory_mb")),
        limits=(0, None),
        folded=True,
    ),
)
_ALWAYS = {"loss", "perplexity", "kl", "grad_norm"}
"""Every line of their kind has these, so one without is not a number."""
MOST_POINTS = 500
"""Points of one curve; longer ones are thinned evenly, which the eye cannot tell."""


def stage_curves(runs: Sequence[RunData]) -> list[PlotGroup]:
    """Plots of every stage that any run has metrics of, in the order of the pipeline."""
    names = list(dict.fromkeys(curves.name for run in runs for curves in run.curves))
    legend_names = short_names([run.name for run in runs])
    found = []
    for name in names:
        of_runs = [next((c for c in run.curves if c.name == name), None) for run in runs]
        drawn = [(kind.folded, _draw(name, kind, of_runs, legend_names)) for kind in PLOTS]
        plots, folded = ([p for f, p in drawn if p and f is away] for away in (False, True))
        if plots or folded:
            found.append(PlotGroup(name, plots, folded))
    return found


def _draw(
    stage: str, kind: PlotKind, runs: Sequence[Curves | None], names: Sequence[str]
) -> Plot | None:
    lines = [
        _line(_label(legend, names[number], len(names)), number, run, lines_of, metric)
        for legend, lines_of, metric in kind.series
        for number, run in enumerate(runs)
        if run is not None
    ]
    return line_plot(
        kind.title, lines, y_label=kind.y_label, log=kind.log, limits=kind.limits, salt=stage
    )


def _label(legend: str, run: str, runs: int) -> str:
    return legend if runs == 1 else f"{legend}, {run}"


def _line(label: str, number: int, run: Curves, lines_of: str, metric: str) -> Line:
    lines: list[dict[str, Any]] = getattr(run, lines_of)
    points = [(line["step"], line[metric]) for line in lines if line.get(metric) is not None]
    if len(points) > MOST_POINTS:
        last = len(points) - 1
        points = [points[round(i * last / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]
    if points and metric in _ALWAYS and lines[-1].get(metric, 0) is None:
        label += ", at last not a number"
    return Line(label, [p[0] for p in points], [p[1] for p in points], number)
