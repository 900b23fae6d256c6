"""A dry run says what the run would do, and refuses what it would refuse, and writes nothing."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import ArtifactError, TallyFormerError
from tallyformer.stages.run import dry_run_stages, run_stages, stages_of


class Silent:
    """Nobody listens."""

    def begins(self, stage: str, number: int, count: int, *, finished: bool) -> None: ...

    def ends(self, stage: str, folder: Path, manifest: Any, *, finished: bool) -> None: ...


def files(run: RunFolder) -> dict[str, tuple[int, int]]:
    found = {p: p.stat() for p in run.path.rglob("*") if p.is_file()}
    return {str(p): (s.st_mtime_ns, s.st_size) for p, s in found.items()}


def states(recipe: Recipe, run: RunFolder) -> dict[str, str]:
    before = files(run)
    planned = dry_run_stages(recipe, run, stages_of(recipe), resume=True)
    assert files(run) == before
    return {stage.stage: stage.state for stage in planned.stages}


def refusals(
    recipe: Recipe, run: RunFolder, *, stages: list[str] | None = None, resume: bool = True
) -> tuple[TallyFormerError, TallyFormerError]:
    """What the dry run and the run say."""
    chosen = stages or stages_of(recipe)
    before = files(run)
    with pytest.raises(TallyFormerError) as dry:
        dry_run_stages(recipe, run, chosen, resume=resume)
    assert files(run) == before
    with pytest.raises(TallyFormerError) as real:
        run_stages(recipe, run, chosen, resume=resume, announcer=Silent())
    return dry.value, real.value


def assert_same(found: tuple[TallyFormerError, TallyFormerError], words: str) -> None:
    dry, real = found
    assert words in str(dry)
    assert (str(dry), dry.exit_status) == (str(real), real.exit_status)


def test_what_is_finished_is_checked_and_what_is_not_would_run(
    tuned: RunFolder, make_recipe: Any
) -> None:
    found = states(make_recipe(), tuned)
    assert list(found.values()) == ["finished"] * 6 + ["to do"] * 3


@pytest.mark.parametrize(
    ("changes", "folder"),
    [
        ({"seed": 5}, "tokenizer"),
        ({"prepare": {"sources": [{"name": "w", "corpus": "primer"}]}}, "tokenizer"),
        ({"pretrain": {"steps": 3}}, "pretrain"),
    ],
)
def test_finished_work_of_another_recipe_is_refused_as_the_run_refuses_it(
    pretrained: RunFolder, make_recipe: Any, changes: Any, folder: str
) -> None:
    assert_same(refusals(make_recipe(**changes), pretrained), f"{folder}: belongs to another run")


def test_unfinished_work_of_another_recipe_is_refused(
    prepared: RunFolder, make_recipe: Any
) -> None:
    from tallyformer.stages import pretrain

    pretrain.work_of(make_recipe(seed=5), prepared).claim()
    assert_same(refusals(make_recipe(), prepared), "pretrain: belongs to another run")


def test_files_of_somebody_else_are_refused(prepared: RunFolder, make_recipe: Any) -> None:
    prepared.stage("pretrain").mkdir()
    (prepared.stage("pretrain") / "thesis.txt").write_text("mine")
    assert_same(refusals(make_recipe(), prepared), "no pretrain stage wrote")


def test_an_altered_file_is_refused(prepared: RunFolder, make_recipe: Any) -> None:
    shard = next(prepared.stage("prepare").rglob("*.bin"))
    shard.write_bytes(bytes(shard.stat().st_size))
    assert_same(refusals(make_recipe(), prepared), "checksum differs")


def test_unfinished_work_asks_a_single_stage_for_resume(
    prepared: RunFolder, make_recipe: Any
) -> None:
    from tallyformer.stages import pretrain

    recipe = make_recipe()
    pretrain.work_of(recipe, prepared).claim()
    assert states(recipe, prepared)["pretrain"] == "unfinished"
    found = refusals(recipe, prepared, stages=["pretrain"], resume=False)
    assert_same(found, "or resume with: tallyformer ")


def test_a_folder_in_which_another_process_works_is_refused(
    prepared: RunFolder, make_recipe: Any
) -> None:
    recipe = make_recipe()
    with (prepared.path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert_same(refusals(recipe, prepared), "another tallyformer process is working")
    assert states(recipe, prepared)["prepare"] == "finished"


def test_work_behind_a_stage_that_has_yet_to_run_is_not_compared(
    pretrained: RunFolder, make_recipe: Any
) -> None:
    shutil.rmtree(pretrained.stage("prepare"))
    found = states(make_recipe(), pretrained)
    assert (found["tokenizer"], found["prepare"]) == ("finished", "to do")
    assert found["pretrain"] == found["teacher"] == "undecided"


def test_a_dry_run_of_a_run_that_was_never_started_makes_no_folder(
    tmp_path: Path, make_recipe: Any
) -> None:
    run = RunFolder(tmp_path / "none")
    assert set(states(make_recipe(), run).values()) == {"to do"}
    assert not run.path.exists()
    with pytest.raises(ArtifactError, match="pretrain needs tokenizer"):
        dry_run_stages(make_recipe(), run, ["pretrain"], resume=True)
