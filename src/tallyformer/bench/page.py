"""The HTML page of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tallyformer.bench.measuring import Cell, Variant
from tallyformer.bench.plots import variant_plots
from tallyformer.bench.results import Results
from tallyformer.bench.settings import BenchSettings
from tallyformer.bench.tables import (
    details_table,
    failures_table,
    grid_table,
    load_table,
    number_text,
)
from tallyformer.report.html import Card, Part, PlotGroup, page_html
from tallyformer.report.tables import Table


def bench_page(results: Results) -> str:
    """The page as text."""
    partial = f"Partial: {results.partial}. What had been measured until then is shown."
    return page_html(
        "TallyFormer benchmark",
        results.target,
        cards=[_card(*named, results) for named in _named(results.variants)],
        notes=[*([partial] if results.partial else []), *_method(results.settings)],
        sections=_sections(results.variants),
    )


def _sections(variants: Sequence[Variant]) -> list[Part]:
    named = _named(variants)
    plots = [
        PlotGroup(_caption(caption, group.name), group.plots, [])
        for variant, caption in named
        for group in variant_plots(variant)
    ]
    failures = failures_table(variants)
    return [
        Part(
            "streams",
            "Streams kept busy",
            _there([grid_table(v, _caption(c, "Closed loop")) for v, c in named]),
            absent="Not measured.",
        ),
        Part(
            "load",
            "Under load",
            _there([load_table(v, _caption(c, "Open loop")) for v, c in named]),
            absent="Not measured.",
        ),
        Part("plots", "Plots", curves=plots, absent="One point makes no curve."),
        Part(
            "failures",
            "Failures",
            [failures] if failures else (),
            absent="No request failed.",
        ),
        Part(
            "details",
            "Details",
            folded=_there([details_table(v, _caption(c, "Every cell")) for v, c in named]),
        ),
    ]


def _card(variant: Variant, caption: str, results: Results) -> Card:
    findings = [
        ("one stream", _one_stream(variant.grid)),
        ("most", _most(variant.grid)),
        ("capacity", _capacity(variant)),
        ("goodput", _goodput(variant)),
    ]
    facts = [
        *((name.replace("_", " "), str(value)) for name, value in variant.facts.items()),
        ("measured from", _machine_text(results.machine)),
        ("date", results.date),
    ]
    return Card(caption or variant.name, "", [f for f in findings if f[1]], facts)


def _one_stream(grid: Sequence[Cell]) -> str:
    alone = [c for c in grid if c.streams == 1 and c.summary.ttft_ms]
    if not alone:
        return ""
    speeds = [s for c in alone if (s := c.summary.stream_tokens_per_second)]
    first = [c.summary.ttft_ms.percentiles[50] for c in alone if c.summary.ttft_ms]
    lengths = [c.prompt_tokens[0] for c in alone]
    parts = [f"{_span(speeds)} tokens/s"] if speeds else []
    parts.append(f"first token after {_span(first)} ms")
    return f"{', '.join(parts)} (medians; prompts of {_span(lengths)} tokens)"


def _most(grid: Sequence[Cell]) -> str:
    best = max(grid, key=lambda c: c.summary.tokens_per_second, default=None)
    if best is None or not best.summary.tokens_per_second:
        return ""
    return f"{number_text(best.summary.tokens_per_second)} tokens/s ({best.title})"


def _capacity(variant: Variant) -> str:
    if variant.capacity is None:
        return ""
    summary = variant.capacity.summary
    answers, tokens = map(number_text, (summary.requests_per_second, summary.tokens_per_second))
    return (
        f"{answers} answers/s, {tokens} tokens/s "
        f"({variant.capacity.streams} streams, all prompt lengths)"
    )


def _goodput(variant: Variant) -> str:
    best = max(variant.loads, key=lambda c: c.summary.goodput, default=None)
    if best is None:
        return ""
    return (
        f"up to {number_text(best.summary.goodput)} answers/s within both targets, at {best.title}"
    )


def _machine_text(machine: dict[str, Any]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}"
    )


def _method(settings: BenchSettings) -> list[str]:
    return [
        f"Answers of {settings.output_tokens} tokens; each cell is measured for "
        f"{settings.seconds:g} s after its warm-up. In a closed loop each stream sends its next "
        "request when it has its answer; in an open loop requests come as a Poisson process, "
        "whether or not earlier ones are answered.",
        "All times count from the moment a request was due. Time to first token: to the first "
        "part of the answer with content. Inter-token latency: a request's mean time between "
        "tokens. End to end: to the end of the answer. Failed requests are in none of the times.",
        f"Goodput: answers whose first token came within {settings.target_ttft_ms:g} ms and whose "
        f"inter-token latency was at most {settings.target_itl_ms:g} ms.",
    ]


def _named(variants: Sequence[Variant]) -> list[tuple[Variant, str]]:
    """Each variant with what tells it from the others; nothing if it is the only one."""
    if len(variants) < 2:
        return [(variant, "") for variant in variants]
    return [(v, f"{v.facts.get('dtype')} on {v.facts.get('device')}") for v in variants]


def _caption(variant: str, text: str) -> str:
    return f"{text}, {variant}" if variant else text


def _there(tables: Sequence[Table | None]) -> list[Table]:
    return [table for table in tables if table is not None]


def _span(values: Sequence[float]) -> str:
    low, high = number_text(min(values)), number_text(max(values))
    return low if low == high else f"{low} to {high}"
