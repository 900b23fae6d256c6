"""Line plots as inline SVG that follow the page's colours, light or dark.

matplotlib draws in marker colours, which are then replaced by CSS: text and axes take the page's
text colour, series the variables --series-1, --series-2, ...
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

LIGHT = ("#0b5cad", "#c2410c", "#15803d", "#7c3aed", "#a16207", "#be185d")
"""Series colours of the page on white."""
SERIES = len(LIGHT)
MARKED = 12
"""Points of a curve that are marked; a curve of more is a line."""
LEAST_RANGE = 0.01
"""What a linear axis spans at least, as a share of the greatest value."""
LOG_FROM = 50
"""Factor between the least and the greatest value from which an axis may be logarithmic."""
_TEXT, _GRID = "#010203", "#010204"
_COLOURS = [f"#0102{16 + n:02x}" for n in range(SERIES)]
_DASHES = ("-", "--", ":", "-.")
_CLEANING = (
    (r"<metadata>.*?</metadata>", ""),
    (r"<style[^>]*>.*?</style>", ""),  # it would style the whole page
    (r' id="[A-Za-z0-9.]+_\d+"', ""),  # figure_1, axes_1: the same in every plot
    (r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">'),
    (r"font-family: [^;\"]+", "font-family: inherit"),
    (r"\s*\n\s*", " "),
)
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "text.color": _TEXT,
    "axes.edgecolor": _TEXT,
    "axes.labelcolor": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "grid.color": _GRID,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: its name in the legend.
        x, y: points, in order; neither NaN nor infinite.
        run: number of the run it belongs to; decides solid or dashed.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    run: int = 0


@dataclass(frozen=True)
class Plot:
    """A drawn plot: its title, what it shows in words, and an SVG element."""

    title: str
    description: str
    svg: str


def line_plot(
    title: str,
    lines: Sequence[Line],
    *,
    y_label: str,
    x_label: str = "step",
    log: bool = False,
    limits: tuple[float, float | None] | None = None,
    salt: str = "",
) -> Plot | None:
    """Draw curves; None if there is not a single point.

    Args:
        title: what is shown, also the figure's caption.
        lines: one colour each.
        y_label: name and unit of the vertical axis.
        x_label: name of the horizontal axis.
        log: logarithmic vertical axis, if all values are above 0 and they differ by a factor that
            no other axis can show.
        limits: of a linear vertical axis; by default, or where one is None, they follow the values.
        salt: makes ids inside the SVG differ from those of a plot of the same title.
    """
    drawn = [line for line in lines if len(line.x)]
    if not drawn:
        return None
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": _digest(salt, title, drawn)}):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        for number, line in enumerate(drawn):
            axes.plot(
                line.x,
                line.y,
                label=line.label.replace("$", r"\$"),  # a pair of $ would be a formula
                color=_COLOURS[number % SERIES],
                linestyle=_DASHES[line.run % len(_DASHES)],
                linewidth=1.6,
                marker="o" if len(line.x) <= MARKED else None,
                markersize=3.5,
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        whole = all(float(x).is_integer() for line in drawn for x in line.x)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=whole))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _scale(axes, drawn, log, limits)
        axes.set_xlim(left=0)
        if len(drawn) > 1:
            axes.legend().set_in_layout(False)
        svg = _as_svg(figure)
    return Plot(title, describe(drawn, x_label), svg)


def describe(lines: Sequence[Line], x_label: str = "step") -> str:
    """The plot in words: where each curve starts, ends, and its range."""
    parts = [
        f"{line.label} goes from {line.y[0]:.4g} at {x_label} {line.x[0]:g} to {line.y[-1]:.4g} "
        f"at {x_label} {line.x[-1]:g}, between {min(line.y):.4g} and {max(line.y):.4g}"
        for line in lines
    ]
    return "; ".join(parts) + "."


def standalone(plot: Plot) -> str:
    """A plot as an SVG file of its own, in the page's light colours."""
    text = plot.svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    for number, colour in enumerate(LIGHT, start=1):
        text = text.replace(f"var(--series-{number})", colour)
    return text.replace("var(--grid)", "#e4e7eb").replace("currentColor", "#1b1f24")


def _scale(
    axes: Axes, lines: Sequence[Line], log: bool, limits: tuple[float, float | None] | None
) -> None:
    values = [value for line in lines for value in line.y]
    if log and 0 < LOG_FROM * min(values) < max(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    if limits:
        axes.set_ylim(*limits)
    else:
        _keep_in_sight(axes, min(values), max(values))
    if max(abs(v) for v in values) >= 1000:
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def _keep_in_sight(axes: Axes, low: float, high: float) -> None:
    """Widen a vertical axis on which the last digits of a number would look like much."""
    lacking = LEAST_RANGE * max(abs(low), abs(high)) - (high - low)
    if lacking > 0:
        axes.set_ylim(low - lacking / 2, high + lacking / 2)


def _as_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for pattern, replacement in _CLEANING:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href").replace(_TEXT, "currentColor")
    text = text.replace(_GRID, "var(--grid)")
    for number, colour in enumerate(_COLOURS, start=1):
        text = text.replace(colour, f"var(--series-{number})")
    return text


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
