"""The report: one HTML file that needs nothing else, for one run or for two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import atomic_file
from tallyformer.artifacts.paths import usable_path
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.errors import UsageError
from tallyformer.monitor.words import plain
from tallyformer.report.comparison import Comparison, control_note
from tallyformer.report.curves import stage_curves
from tallyformer.report.html import AnswerGroup, Asked, Part, Reply, Text, page_html
from tallyformer.report.results_tables import (
    arithmetic_tables,
    facts_tables,
    manners_tables,
    perplexity_tables,
    response_table,
)
from tallyformer.report.run_card import run_card
from tallyformer.report.run_data import RunData, read_run
from tallyformer.report.run_tables import (
    data_tables,
    models_table,
    stages_table,
    versions_table,
)
from tallyformer.report.tables import Table
from tallyformer.report.written import written_groups


def write_report(runs: list[RunFolder], out: Path) -> None:
    """Write the report of one run, or of two side by side.

    A stage that has not run leaves its section out or says so.

    Args:
        runs: one or two run folders.
        out: the HTML file; replaced if it is there.

    Raises:
        UsageError: not one or two different runs, or a path is none.
        ArtifactError: a run's folder does not exist or holds a damaged file.
    """
    if len(runs) not in (1, 2):
        raise UsageError(f"a report shows one run or two side by side; {len(runs)} were given")
    for path in (*(run.path for run in runs), out):
        usable_path(path)
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise UsageError(f"{runs[0].path}: is given twice. Name another run to compare it with")
    page = render([read_run(run, name) for run, name in zip(runs, _names(runs), strict=True)])
    with atomic_file(out, "w") as file:
        file.write(plain(page))


def render(runs: Sequence[RunData]) -> str:
    """The page as text."""
    return page_html(
        "TallyFormer report",
        " and ".join(run.name for run in runs),
        cards=[run_card(run) for run in runs],
        notes=_comparison(runs),
        sections=_parts(runs),
    )


def _comparison(runs: Sequence[RunData]) -> list[str]:
    """What has to be known to read two runs side by side."""
    found = [*Comparison.of(runs).notes(), control_note(runs)]
    return [note for note in found if note]


def _parts(runs: Sequence[RunData]) -> list[Part]:
    not_evaluated = "Not measured yet: the stage evaluate of this run has not finished."
    by_domain = perplexity_tables(runs)
    return [
        Part("samples", "Samples", samples=_samples(runs), absent=not_evaluated),
        Part(
            "stages",
            "Training",
            _there(stages_table(runs)),
            absent="No training stage has finished.",
        ),
        Part(
            "perplexity",
            "Perplexity by domain",
            by_domain[:1],
            folded=by_domain[1:],
            absent=not_evaluated,
        ),
        Part(
            "responses",
            "Responses",
            _there(response_table(runs)),
            absent="No held-out pairs in this recipe, or not measured yet.",
        ),
        _judged_part(runs, "facts", "Facts", "topic", facts_tables(runs)),
        _judged_part(runs, "manners", "Small talk and follow-ups", "kind", manners_tables(runs)),
        _judged_part(runs, "arithmetic", "Arithmetic", "kind", arithmetic_tables(runs)),
        Part(
            "curves",
            "Learning curves",
            curves=stage_curves(runs),
            absent="No training stage has written metrics yet.",
        ),
        Part(
            "written",
            "Written while it trained",
            written=written_groups(runs),
            absent="No training stage has written samples: none has begun, or sample_tokens is 0.",
        ),
        Part("data", "Data", data_tables(runs), absent="The stage prepare has not finished."),
        Part(
            "origin",
            "Models, versions and recipe",
            _there(models_table(runs), versions_table(runs)),
            texts=[Text(f"Recipe of {r.name}", r.recipe_text) for r in runs if r.recipe_text],
            absent="No stage has finished, and there is no recipe.",
        ),
    ]


def _judged_part(
    runs: Sequence[RunData], section: str, title: str, key: str, tables: Sequence[Table]
) -> Part:
    return Part(
        section,
        title,
        tables[:1],
        folded=tables[1:],
        answers=_answer_groups(runs, section, key),
        absent="Not asked in this recipe, or not measured yet.",
    )


def _there(*tables: Table | None) -> list[Table]:
    return [table for table in tables if table is not None]


def _samples(runs: Sequence[RunData]) -> list[Asked]:
    asked: dict[str, Asked] = {}
    for run in runs:
        for sample in run.results.get("samples", {}).get("answers", []):
            question = sample["question"]
            into = asked.setdefault(question, Asked(question, [], sample.get("expected", "")))
            into.replies.append(Reply(run.name, sample["answer"]))
    return list(asked.values())


def _answer_groups(runs: Sequence[RunData], section: str, key: str) -> list[AnswerGroup]:
    groups: dict[str, dict[str, Asked]] = {}
    for run in runs:
        answers: list[dict[str, Any]] = run.results.get(section, {}).get("answers", [])
        for a in answers:
            asked = groups.setdefault(a[key], {}).setdefault(
                a["question"], Asked(a["question"], [], a["expected"])
            )
            asked.replies.append(Reply(run.name, a["answer"], bool(a["right"])))
    return [
        AnswerGroup(f"{name} ({len(asked)})", list(asked.values()))
        for name, asked in sorted(groups.items())
    ]


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """The folders' names, with as much of their paths as tells them apart."""
    paths = [run.path.resolve().parts for run in runs]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return names
