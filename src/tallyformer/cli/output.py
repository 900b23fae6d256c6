"""What the stage commands print: headers on standard error, results on standard output."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tallyformer.artifacts.manifest import Manifest
    from tallyformer.preflight.advice import Advice
    from tallyformer.stages.run import DryRun

_WIDTH = 72
_SHOWN_CHARACTERS = 4 * _WIDTH
"""Of a question or an answer; the report has all of it."""


class StageAnnouncer:
    """Prints a header when a stage begins and a line when it ends."""

    def begins(self, stage: str, number: int, count: int, *, finished: bool) -> None:
        """`── 3/9 pretrain ──────`, or a line saying that its work is there and is checked."""
        place = f"{number}/{count} " if count > 1 else ""
        if finished:
            click.secho(
                f"── {place}{stage}: finished before, checking its files", err=True, dim=True
            )
        else:
            click.secho(f"── {place}{stage} ".ljust(_WIDTH, "─"), err=True, bold=True)

    def ends(self, stage: str, folder: Path, manifest: Manifest, *, finished: bool) -> None:
        """The stage's folder, and what it reached."""
        if finished:
            return
        click.secho(
            f"   {stage} done: {short_path(folder)}{headline(manifest)}", err=True, fg="green"
        )
        if manifest.metrics.get("best_phase") == 0:
            click.secho(
                "   No phase of distillation improved the student, so it is kept as it was. Give "
                "distill.phases more steps or a higher learning rate, or a better teacher",
                err=True,
                fg="yellow",
            )


def headline(manifest: Manifest) -> str:
    """What a training or the evaluation reached, in brackets; "" for other stages.

    `  (validation perplexity 13.60 -> 12.95)`, `  (held-out facts 39 of 45 right, ...)`
    """
    metrics = manifest.metrics
    if manifest.stage == "evaluate":
        told = ", ".join(islice(_measured(metrics), 2))
        return told and f"  ({told})"
    for what in ("response_perplexity", "validation_perplexity"):
        if isinstance(metrics.get(what), float):
            before = metrics.get(f"{what}_before")
            start = "" if before is None else f"{before:.2f} -> "
            return f"  ({what.replace('_', ' ')} {start}{metrics[what]:.2f})"
    return ""


def _measured(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What the evaluation says of the final model, the most telling first."""
    if facts := metrics.get("facts"):
        yield f"held-out facts {facts['right']} of {facts['asked']} right"
    responses = metrics.get("response_perplexity", {})
    if responses.get("after sft") is not None:
        before = responses.get("before sft")
        start = "" if before is None else f"{before:.2f} -> "
        yield f"response perplexity {start}{responses['after sft']:.2f}"
    for final in list(metrics["perplexity"].values())[-1:]:
        for domain, value in final.items():
            if value is not None:
                yield f"perplexity of {domain} {value:.2f}"


def print_dry_run(planned: DryRun) -> None:
    """One line a stage: what a run without --dry-run would do; then how to run just that."""
    say = {
        "finished": "finished; its files are intact and would be kept",
        "unfinished": "unfinished; would be resumed",
        "undecided": "not empty; kept only if the stages before it come out as they were",
        "to do": "would run",
    }
    wide = max(len(s.stage) for s in planned.stages)
    for one in planned.stages:
        click.echo(f"{one.stage:<{wide}}  {say[one.state]}: {short_path(one.folder)}")
    click.echo("The recipe and its inputs are in order. Nothing was written.")
    click.echo(f"To run it with exactly these inputs: {planned.command}")


def print_advice(advice: Sequence[Advice]) -> None:
    """Warnings on standard error, before a run begins."""
    for one in advice:
        click.secho(f"warning: {one.stage}: {one.text}", err=True, fg="yellow")


def print_samples(evaluate: Path, heading: str) -> None:
    """The questions and answers among the results of the stage `evaluate`."""
    from tallyformer.artifacts.json_files import read_checked_json

    results = read_checked_json(
        evaluate / "results.json", fix=f"Delete {evaluate} and run the same command again"
    )
    samples = results.get("samples", {}).get("answers", ())
    if samples:
        click.secho(f"\n{heading}", bold=True)
    for sample in samples:
        click.echo()
        _print_part("Q", sample["question"])
        _print_part("A", sample["answer"] or "(no text)", bold=True)
        if sample.get("expected"):
            _print_part("in the data", sample["expected"], dim=True)
    click.echo()


def _print_part(label: str, text: str, *, bold: bool = False, dim: bool = False) -> None:
    """A text of a few lines at most, indented behind its label."""
    short = textwrap.shorten(text, _SHOWN_CHARACTERS, placeholder=" ...")
    prefix = f"  {label}: "
    lines = textwrap.wrap(short, _WIDTH, initial_indent=prefix, subsequent_indent=" " * 5)
    click.secho("\n".join(lines), bold=bold, dim=dim)


def short_path(path: Path) -> Path:
    """A path as a user would type it: relative where it lies below the present folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
