"""What the stage commands print: headers on standard error, results on standard output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tallyformer.artifacts.manifest import Manifest
    from tallyformer.stages.run import PlannedStage

_WIDTH = 72


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
        """The stage's folder."""
        if not finished:
            click.secho(f"   {stage} done: {shown(folder)}", err=True, fg="green")


def print_dry_run(stages: Sequence[PlannedStage]) -> None:
    """One line a stage: what a run without --dry-run would do."""
    say = {
        "finished": "finished; its files would be checked and kept",
        "unfinished": "unfinished; would go on",
        "to do": "would run",
    }
    wide = max(len(s.stage) for s in stages)
    for planned in stages:
        click.echo(f"{planned.stage:<{wide}}  {say[planned.state]}: {shown(planned.folder)}")
    click.echo("The recipe and its inputs are in order. Nothing was written.")


def print_samples(evaluate: Path) -> None:
    """The questions and answers among the results of the stage `evaluate`."""
    results = json.loads((evaluate / "results.json").read_text(encoding="utf-8"))
    for sample in results.get("samples", {}).get("answers", ()):
        click.echo()
        click.secho(f"Q: {sample['question']}", bold=True)
        click.echo(f"A: {sample['answer'].strip()}")
    click.echo()


def shown(path: Path) -> Path:
    """A path as a user would type it: relative where it lies below the present folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
