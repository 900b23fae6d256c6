"""The folder of a benchmark.

results.json     settings, machine, and the numbers of every cell
requests.jsonl   every request
table.csv        the numbers of every cell, one a line
plots/           SVG
report.html      the page
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from tallyformer.artifacts.atomic import atomic_file, write_json
from tallyformer.artifacts.paths import usable_path
from tallyformer.artifacts.versions import utc_now
from tallyformer.bench.page import bench_page
from tallyformer.bench.plots import variant_plots
from tallyformer.bench.results import Results, request_rows, results_json, table_rows
from tallyformer.errors import UsageError
from tallyformer.report.plots import standalone

_PLACE = Path("bench")


def new_folder(given: Path | None, target: str) -> Path:
    """A folder that is not there yet, or is empty.

    Args:
        given: by the user; None names it after the target and the time.
        target: the folder or URL that is measured.

    Raises:
        UsageError: there is something in it, or it is none.
    """
    if given is None:
        name = re.sub(r"[^A-Za-z0-9.]+", "-", target.partition("://")[2] or target).strip("-.")
        return _PLACE / f"{name[-40:] or 'model'}-{utc_now():%Y%m%d-%H%M%S}"
    path = usable_path(given)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"--out: {path} is not empty. Give a folder that is new or empty")
    return path


def write_results(results: Results, folder: Path) -> None:
    """Write everything.

    Raises:
        ArtifactError: the system refuses to write.
    """
    write_json(folder / "results.json", results_json(results))
    with atomic_file(folder / "requests.jsonl", "w") as file:
        for row in request_rows(results):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    rows = table_rows(results)
    with atomic_file(folder / "table.csv", "w") as file:
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(file, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    _write_plots(results, folder / "plots")
    with atomic_file(folder / "report.html", "w") as file:
        file.write(bench_page(results))


def _write_plots(results: Results, folder: Path) -> None:
    for number, variant in enumerate(results.variants, start=1):
        for group in variant_plots(variant):
            for plot in group.plots:
                words = f"{group.name} {plot.title}".lower().replace(" ", "-")
                first = f"{number}-" if len(results.variants) > 1 else ""
                with atomic_file(folder / f"{first}{words}.svg", "w") as file:
                    file.write(standalone(plot))
