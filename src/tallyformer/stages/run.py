"""A run: the stages of a recipe in their order, each skipped when its work is finished."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from tallyformer.artifacts.atomic import atomic_file
from tallyformer.artifacts.lock import alone_in, check_not_in_use
from tallyformer.artifacts.manifest import MANIFEST, Manifest
from tallyformer.artifacts.run_folder import CLAIM, RECIPE, RunFolder, StageWork
from tallyformer.artifacts.stages import STAGES
from tallyformer.config import Recipe, recipe_as_yaml
from tallyformer.config.written_recipe import with_checksum
from tallyformer.errors import ArtifactError, Interrupted, UsageError
from tallyformer.interrupt import Stopped
from tallyformer.preflight.expected import (
    check_expected,
    check_unchanged_inputs,
    code_of,
    inputs_of,
)
from tallyformer.preflight.foreseen import finished_inputs, foresee
from tallyformer.preflight.hub_commits import with_commits
from tallyformer.preflight.inputs import check_inputs, needs_of
from tallyformer.preflight.readiness import AFTER_PREPARE, check_readiness


class Announcer(Protocol):
    """Hears what a run does; the command line prints it."""

    def begins(self, stage: str, number: int, count: int, *, finished: bool) -> None:
        """A stage begins; `finished` means its work exists and is only checked."""

    def ends(self, stage: str, folder: Path, manifest: Manifest, *, finished: bool) -> None:
        """The stage's folder is complete."""


@dataclass(frozen=True)
class PlannedStage:
    """One line of a dry run.

    Attributes:
        state: "finished", "unfinished" (it would resume), "undecided" (whether the folder's work
            is this recipe's depends on stages that have yet to run) or "to do".
    """

    stage: str
    folder: Path
    state: str


@dataclass(frozen=True)
class DryRun:
    """What a dry run found.

    Attributes:
        stages: what each would do.
        command: does it, and refuses inputs that are not those that were seen here.
    """

    stages: Sequence[PlannedStage]
    command: str


class _Stage(Protocol):
    """What every module of a stage has."""

    def run(self, recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
        """Do the work, or return at once if it is done."""

    def work_of(self, recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> StageWork:
        """The same work, not yet begun; needs the finished folders of the stages it reads."""


def stages_of(recipe: Recipe) -> list[str]:
    """The stages that this recipe asks for, in order."""
    return [stage for stage in STAGES if not _why_absent(recipe, stage)]


def require_stage(recipe: Recipe, stage: str, where: str) -> None:
    """Check that a recipe has a stage.

    Args:
        where: the recipe's file, named in the error.

    Raises:
        UsageError: it has not.
    """
    reason = _why_absent(recipe, stage)
    if reason:
        raise UsageError(f"{where}: {reason}, so there is nothing for `{stage}` to do. Add it")


def run_stages(
    recipe: Recipe,
    folder: RunFolder,
    stages: Sequence[str],
    *,
    resume: bool,
    announcer: Announcer,
) -> None:
    """Run stages one after the other in this process.

    The folder's `recipe.yaml` is written before the first work in a new folder. In an old one it
    is replaced once a stage has worked by a changed recipe, to its end or until it was stopped, so
    that a refused recipe leaves no trace and the command to resume finds its own.

    What can be known beforehand is checked beforehand: of the inputs before any work, of the rest
    before the first training, when vocabulary and shards are there. An input that changes between
    that and the stage that reads it is refused, as is one that is not as `folder.expect` says.

    Raises:
        ArtifactError: another process works in the folder, or a stage's folder holds other work.
        UsageError: `folder.expect` is not of these inputs.
        DataError: an input cannot be used, or has changed.
        TallyFormerError: what a stage raises.
    """
    _check_is_no_stage(folder.path)
    _check_expected(recipe, folder, stages)
    check_inputs(recipe, folder, stages)
    with alone_in(folder.path):
        recipe = with_commits(recipe, folder, stages, record=True)
        seen = inputs_of(recipe, stages)
        if not (folder.path / RECIPE).exists():
            write_recipe(recipe, folder.path / RECIPE)
        first_after = next((s for s in stages if s in AFTER_PREPARE), None)
        for number, stage in enumerate(stages, start=1):
            if stage == first_after:
                _check_rest(recipe, folder, stages)
            finished = folder.is_finished(stage)
            announcer.begins(stage, number, len(stages), finished=finished)
            try:
                with resumable(folder, stage):
                    check_unchanged_inputs(seen, inputs_of(recipe, [stage]))
                    manifest = _module_of(stage).run(recipe, folder, resume=resume)
            except Interrupted:
                write_recipe(recipe, folder.path / RECIPE)
                raise
            if not finished:
                write_recipe(recipe, folder.path / RECIPE)
            announcer.ends(stage, folder.stage(stage), manifest, finished=finished)


@contextlib.contextmanager
def resumable(folder: RunFolder, work: str) -> Iterator[None]:
    """A signal inside the block ends it with the command that resumes.

    Args:
        work: the stage, or the command, that is stopped.

    Raises:
        Interrupted: a signal came.
    """
    try:
        yield
    except Stopped as stopped:
        raise Interrupted(
            f"{work}: {stopped}; finished work is kept. Resume with: {folder.resume_command(work)}",
            stopped.signal_number,
        ) from None


def dry_run_stages(
    recipe: Recipe, folder: RunFolder, stages: Sequence[str], *, resume: bool
) -> DryRun:
    """Check all inputs of some stages and say what each would do, writing nothing.

    Vocabulary and shards that are not there are made in memory where the texts are small.

    What `run_stages` would refuse is refused here in the same words. A folder whose work depends
    on a stage that has yet to run is not compared.

    Raises:
        DataError, ArtifactError: an input is missing; all that are missing are named.
        ArtifactError: another process works in the folder, a stage's folder holds other work or
            was altered, or it holds unfinished work and `resume` is not given.
    """
    _check_is_no_stage(folder.path)
    check_not_in_use(folder.path)
    _check_expected(recipe, folder, stages)
    check_inputs(recipe, folder, stages)
    recipe = with_commits(recipe, folder, stages, record=False)
    seen = code_of(inputs_of(recipe, stages))
    states: dict[str, str] = {}
    for stage in stages:
        reads = needs_of(recipe, stage)
        known = all(states.get(name, "finished") == "finished" for name in reads)
        states[stage] = _state(recipe, folder, stage, inputs_are_known=known, resume=resume)
    _check_rest(recipe, folder, stages)
    return DryRun(
        [PlannedStage(stage, folder.stage(stage), states[stage]) for stage in stages],
        folder.expecting_command(stages[-1], seen)
        + (" --resume" if "unfinished" in states.values() else ""),
    )


def _check_expected(recipe: Recipe, folder: RunFolder, stages: Sequence[str]) -> None:
    """Check that the inputs are those of the dry run that the user names, if one is named."""
    if folder.expect is not None:
        now = inputs_of(with_commits(recipe, folder, stages, record=False), stages)
        look_again = f"{folder.expecting_command(stages[-1], None)} --dry-run"
        check_expected(folder.expect, now, look_again)


def _check_rest(recipe: Recipe, folder: RunFolder, stages: Sequence[str]) -> None:
    """Check what can be known before training, unless all work is done."""
    todo = [stage for stage in stages if not folder.is_finished(stage)]
    if not todo:
        return
    made = all(folder.is_finished(stage) for stage in ("tokenizer", "prepare"))
    check_readiness(recipe, folder, todo, finished_inputs(folder) if made else foresee(recipe))


def _state(
    recipe: Recipe, folder: RunFolder, stage: str, *, inputs_are_known: bool, resume: bool
) -> str:
    path = folder.stage(stage)
    if not (path.is_dir() and any(path.iterdir())):
        return "to do"
    if not inputs_are_known:
        return "undecided"
    work = _module_of(stage).work_of(recipe, folder, resume=resume)
    return "finished" if work.check() else "unfinished"


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the full recipe atomically, unless that very text is already there."""
    text = with_checksum(recipe_as_yaml(recipe)).encode()
    if path.is_file() and path.read_bytes() == text:
        return
    with atomic_file(path) as file:
        file.write(text)


def _why_absent(recipe: Recipe, stage: str) -> str | None:
    if stage == "teacher" and not (recipe.teacher and recipe.teacher.model):
        return "the recipe has no teacher.model section"
    if stage == "distill" and recipe.distill is None:
        return "the recipe has no distill section"
    if stage in ("sft", "merge") and recipe.sft is None:
        return "the recipe has no sft section"
    return None


def _module_of(stage: str) -> _Stage:
    """A stage. Imported late: a stage that has nothing to do with torch loads none."""
    assert stage in STAGES
    return cast(_Stage, importlib.import_module(f"tallyformer.stages.{stage}"))


def _check_is_no_stage(path: Path) -> None:
    """Refuse the folder of a stage where that of a run is wanted."""
    if any((path / name).exists() for name in (MANIFEST, CLAIM)):
        raise ArtifactError(
            f"{path}: is the folder of a stage. Give its run, {path.parent}, or choose another "
            "--out"
        )
