"""What a benchmark leaves in its folder.

results.json     settings, machine, and the numbers of every cell
requests.jsonl   every request
table.csv        the numbers of every cell, one a line
plots/           SVG
report.html      the page
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tallyformer.artifacts.versions import installed_versions
from tallyformer.bench.measuring import Cell, Variant
from tallyformer.bench.settings import BenchSettings
from tallyformer.bench.summary import Spread

FORMAT = 1
_UNITS = {
    "*_ms": "milliseconds",
    "seconds": "seconds",
    "tokens_per_second": "tokens of answers a second, all streams together",
    "requests_per_second": "answers a second",
    "prompt_tokens, output_tokens": "tokens a request, on average",
    "goodput": "answers a second within both targets",
    "good_share": "share of all requests, 0 to 1",
    "rate": "requests a second",
    "load": "share of the capacity",
}


@dataclass(frozen=True)
class Results:
    """All that was measured.

    Attributes:
        target: the folder or URL, as it was given.
        date: of the measurement.
        machine: that measured.
        settings: what was to be measured.
        variants: what was.
        partial: why that is not all; empty if it is.
    """

    target: str
    date: str
    machine: dict[str, Any]
    settings: BenchSettings
    variants: list[Variant]
    partial: str = ""


def results_json(results: Results) -> dict[str, Any]:
    """Settings, machine, and the numbers of every cell."""
    return {
        "format": FORMAT,
        "date": results.date,
        "target": results.target,
        "partial": results.partial or None,
        "settings": dataclasses.asdict(results.settings),
        "units": _UNITS,
        "machine": results.machine,
        "versions": installed_versions(),
        "variants": [_variant_as_json(variant) for variant in results.variants],
    }


def _variant_as_json(variant: Variant) -> dict[str, Any]:
    return {
        "model": variant.name,
        "facts": variant.facts,
        "closed_loops": [_cell_as_json(cell) for cell in variant.grid],
        "capacity": _cell_as_json(variant.capacity) if variant.capacity else None,
        "open_loops": [_cell_as_json(cell) for cell in variant.loads],
    }


def _cell_as_json(cell: Cell) -> dict[str, Any]:
    summary = dataclasses.asdict(cell.summary)
    place: dict[str, Any] = {"streams": cell.streams}
    if cell.load is not None:
        place = {"load": cell.load, "rate": cell.rate}
    return {"prompt_lengths": cell.prompt_tokens, **place, **summary}


def table_rows(results: Results) -> list[dict[str, Any]]:
    """One flat row for each cell; not all have the same fields."""
    return [_flat(variant, cell) for variant in results.variants for cell in variant.cells]


def request_rows(results: Results) -> Iterator[dict[str, Any]]:
    """One row for each request."""
    for variant in results.variants:
        for cell in variant.cells:
            for request in cell.raw:
                yield {"model": variant.name, **variant.facts, "cell": cell.title, **request}


def _flat(variant: Variant, cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {"model": variant.name, **variant.facts}
    row["prompt_lengths"] = "/".join(map(str, cell.prompt_tokens))
    row |= {"streams": cell.streams, "load": cell.load, "rate": cell.rate}
    for name, value in _fields(cell.summary):
        row[name] = value
    return row


def _fields(summary: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(summary):
        value = getattr(summary, field.name)
        if isinstance(value, Spread):
            yield f"{field.name}_mean", value.mean
            for percent, number in value.percentiles.items():
                yield f"{field.name}_p{percent}", number
        elif field.name == "failures":
            yield "failed", sum(value.values())
        elif not field.name.endswith("_ms"):
            yield field.name, value
