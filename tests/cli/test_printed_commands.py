"""Whatever command an error prints can be pasted, and does what the error says."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .printed import paste, printed_command

ODD = "it's a $HOME run"
OPTIONS = ["--recipe", "tiny.yaml", "--out", "the 'run'"]


@pytest.fixture(scope="module")
def _prepared(
    tallyformer: Any, make_recipe: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    place = tmp_path_factory.mktemp("printed") / ODD
    recipe = make_recipe(place)
    text = recipe.read_text(encoding="utf-8").replace(f"data_root: {place}", "data_root: .")
    recipe.write_text(text, encoding="utf-8")
    done = tallyformer("prepare", *OPTIONS, cwd=place)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def place(_prepared: Path, tmp_path: Path) -> Path:
    """A copy of a recipe and its prepared texts, in a folder whose name needs quotes."""
    return Path(shutil.copytree(_prepared, tmp_path / ODD))


def test_a_missing_stage_can_be_made_by_the_command_that_is_printed(
    place: Path, tallyformer: Any
) -> None:
    shutil.rmtree(place / "the 'run'")
    done = tallyformer("pretrain", *OPTIONS, "--dry-run", cwd=place)
    assert done.returncode == 3 and not (place / "the 'run'").exists()
    made = paste(printed_command(done.stderr), place)
    assert made.returncode == 0, made.stderr
    assert (place / "the 'run'" / "tokenizer" / "manifest.json").is_file()


def test_a_damaged_stage_can_be_made_again_by_the_command_that_is_printed(
    place: Path, tallyformer: Any
) -> None:
    stage = place / "the 'run'" / "prepare"
    [shard] = (stage / "train").rglob("*.bin")
    shard.write_bytes(shard.read_bytes()[:-2])
    done = tallyformer("pretrain", *OPTIONS, "--dry-run", cwd=place)
    assert done.returncode == 3 and f"Delete {stage}" in done.stderr, done.stderr
    shutil.rmtree(stage)
    made = paste(printed_command(done.stderr), place)
    assert made.returncode == 0, made.stderr


def test_a_loss_that_is_not_finite_ends_well_when_the_printed_commands_are_followed(
    place: Path, tallyformer: Any
) -> None:
    rate = ["--set", "pretrain.steps=3", "--set", "pretrain.optimizer.learning_rate=1e6"]
    done = tallyformer("pretrain", *OPTIONS, "--set", "pretrain.epochs=null", *rate, cwd=place)
    assert done.returncode == 3 and "is not finite" in done.stderr, done.stderr
    for _ in range(5):
        done = paste(printed_command(done.stderr), place)
        if not done.returncode:
            break
    assert done.returncode == 0, done.stderr


def test_smaller_batches_are_taken_by_the_command_that_a_lack_of_memory_prints(
    place: Path, tallyformer: Any
) -> None:
    """So large that the half is too large as well; but it is tried, not refused."""
    batch = ["--set", f"pretrain.micro_batch={2**36}"]
    done = tallyformer("pretrain", *OPTIONS, *batch, cwd=place)
    assert done.returncode == 3 and "out of memory" in done.stderr, done.stderr
    anew, resume = done.stderr.strip().split(". Where more memory is free, resume with: ")
    command = printed_command(anew)
    assert shlex.split(command)[-1] == "pretrain.gradient_accumulation=4"
    again = paste(command, place)
    assert again.returncode == 3 and "out of memory" in again.stderr, again.stderr
    assert f"micro_batch={2**34}" in again.stderr
    assert resume.partition(" ")[0].endswith("tallyformer")
    assert " pretrain " in resume
