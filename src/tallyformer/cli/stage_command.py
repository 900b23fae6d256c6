"""What every command of a single stage does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tallyformer.cli.options import load
from tallyformer.cli.output import StageAnnouncer, print_advice, print_dry_run
from tallyformer.cli.quiet import quieten_libraries

if TYPE_CHECKING:
    from tallyformer.artifacts.run_folder import RunFolder


def run_one_stage(
    stage: str,
    *,
    recipe: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    dry_run: bool,
    expect: str | None,
) -> None:
    """Run, or with `dry_run` describe, one stage of a recipe.

    Raises:
        UsageError: the recipe has no such stage.
    """
    from tallyformer.preflight.run_size import advice_before
    from tallyformer.stages.run import dry_run_stages, require_stage, resumable, run_stages

    checked, folder = load(recipe, overrides, out, expect)
    require_stage(checked, stage, str(recipe))
    stages = _with_tokenizer(stage, folder)
    if dry_run:
        print_dry_run(dry_run_stages(checked, folder, stages, resume=resume))
        print_advice(advice_before(checked, folder, stages))
        return
    quieten_libraries()
    with resumable(folder, stage):
        print_advice(advice_before(checked, folder, stages))
        run_stages(checked, folder, stages, resume=resume, announcer=StageAnnouncer())


def _with_tokenizer(stage: str, folder: RunFolder) -> list[str]:
    """`prepare` makes the tokenizer first if it is not there."""
    if stage == "prepare" and not folder.is_finished("tokenizer"):
        return ["tokenizer", "prepare"]
    return [stage]
