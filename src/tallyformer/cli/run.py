"""`tallyformer run`."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallyformer.cli.options import (
    dry_run_option,
    expect_option,
    load,
    out_option,
    recipe_options,
)
from tallyformer.cli.output import (
    StageAnnouncer,
    print_advice,
    print_dry_run,
    print_samples,
    short_path,
)
from tallyformer.cli.quiet import quieten_libraries

if TYPE_CHECKING:
    from tallyformer.artifacts.run_folder import RunFolder
    from tallyformer.config import Recipe


@click.command()
@recipe_options
@out_option
@click.option("--resume", is_flag=True, help="What `run` does anyway; accepted as for a stage.")
@dry_run_option
@expect_option
@click.option(
    "--watch", is_flag=True, help="Show the run in the browser while it trains; prints the address."
)
@click.option(
    "--watch-port",
    type=click.IntRange(0, 65535),
    help="Port of --watch. Default: 8001, or a free one where that is in use.",
)
def run(
    recipe: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    *,
    resume: bool,
    dry_run: bool,
    expect: str | None,
    watch: bool,
    watch_port: int | None,
) -> None:
    """Run all stages of a recipe, and resume.

    Stages that are finished are checked and skipped; one that was interrupted resumes where
    it was. Ends with the final model's answers to the recipe's prompts (or to five held-out
    questions; without fine-tuning, with five held-out texts continued), and the paths of the report
    and of the model.
    """
    if watch_port is not None and not watch:
        raise click.UsageError("--watch-port: is of --watch. Give that too")
    if watch and dry_run:
        raise click.UsageError("--watch: a dry run trains nothing. Leave out one of them")
    from tallyformer.preflight.run_size import advice_before
    from tallyformer.stages.run import dry_run_stages, resumable, run_stages, stages_of

    checked, folder = load(recipe, overrides, out, expect)
    stages = stages_of(checked)
    if dry_run:
        print_dry_run(dry_run_stages(checked, folder, stages, resume=True))
        print_advice(advice_before(checked, folder, stages))
        return
    with _page(folder, watch_port) if watch else nullcontext(), resumable(folder, "run"):
        quieten_libraries()
        print_advice(advice_before(checked, folder, stages))
        run_stages(checked, folder, stages, resume=True, announcer=StageAnnouncer())
    print_samples(folder.stage("evaluate"), _heading(checked))
    click.echo(f"report: {short_path(folder.stage('evaluate') / 'report.html')}")
    model = short_path(folder.stage("export"))
    click.echo(f"model:  {model}")
    if checked.sft:
        click.echo(f"chat:   {shlex.join([folder.program, 'chat', '--model', str(model)])}")


def _page(folder: RunFolder, port: int | None) -> AbstractContextManager[None]:
    """The Runs page beside the run."""
    from tallyformer.cli.watching import watched

    return watched(folder.path, port, folder.program)


def _heading(recipe: Recipe) -> str:
    if recipe.evaluate.prompts:
        return "The recipe's prompts, answered by the final model:"
    if recipe.sft is None:
        return "Beginnings of held-out texts, continued by the final model:"
    return "Held-out questions, answered by the final model:"
