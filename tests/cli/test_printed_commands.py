"""Whatever command an error prints can be pasted, and does what the error says."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.program import doctor

from .conftest import command
from .printed import ENVIRONMENT, paste, printed_command

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


def test_what_a_dry_run_prints_runs_with_the_same_inputs_and_with_no_others(
    place: Path, tallyformer: Any
) -> None:
    shutil.rmtree(place / "the 'run'")
    seen = tallyformer("prepare", *OPTIONS, "--dry-run", cwd=place)
    pasted = printed_command(seen.stdout)
    text = place / "texts" / "07.txt"
    before = text.read_bytes()
    text.write_bytes(before[:-9])
    refused = paste(pasted, place)
    assert refused.returncode == 3 and not (place / "the 'run'").exists()
    assert "prepare source 'texts' has changed since the dry run" in refused.stderr
    other = paste(_printed_by_dry_run(refused.stderr, place), place)
    assert other.returncode == 0, other.stderr
    shutil.rmtree(place / "the 'run'")
    text.write_bytes(before)
    same = paste(pasted, place)
    assert same.returncode == 0, same.stderr


def _printed_by_dry_run(refusal: str, place: Path) -> str:
    """The command that the dry run prints which a refusal asks for."""
    seen = paste(printed_command(refusal), place)
    assert seen.returncode == 0, seen.stderr
    return printed_command(seen.stdout)


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


def test_a_stage_whose_claim_is_damaged_is_begun_again_by_the_command_that_is_printed(
    place: Path, tallyformer: Any
) -> None:
    stage = place / "the 'run'" / "pretrain"
    stage.mkdir()
    (stage / "work.txt").write_text("{}")
    done = tallyformer("pretrain", *OPTIONS, "--resume", cwd=place)
    assert done.returncode == 3 and f"Delete {stage} to start this stage again" in done.stderr
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
    restart, resume = done.stderr.strip().split(". Where more memory is free, resume with: ")
    pasted = printed_command(restart)
    assert shlex.split(pasted)[-1] == "pretrain.gradient_accumulation=4"
    again = paste(pasted, place)
    assert again.returncode == 3 and "out of memory" in again.stderr, again.stderr
    assert f"micro_batch={2**34}" in again.stderr
    assert resume.partition(" ")[0].endswith("tallyformer")
    assert " pretrain " in resume


@pytest.fixture
def whole(finished_odd: Path, tmp_path: Path) -> Path:
    """A copy of a whole run, in a folder whose name needs quotes."""
    return Path(shutil.copytree(finished_odd, tmp_path / finished_odd.name))


@pytest.mark.parametrize(
    ("damaged", "by"),
    [
        ("pretrain/best/model.safetensors", "merge"),
        ("sft/adapter/adapter_model.safetensors", "merge"),
        ("merge/merged/config.json", "evaluate"),
        ("tokenizer/tokenizer.json", "sft inspect"),
        ("evaluate/results.json", "report"),
    ],
)
def test_whatever_is_damaged_is_made_again_by_the_command_that_is_printed(
    damaged: str, by: str, whole: Path, tallyformer: Any
) -> None:
    run = whole / "the run"
    options = ["--recipe", "tiny.yaml", "--out", "the run"]
    if by == "report":
        options = ["the run"]
    elif by in ("merge", "evaluate"):
        shutil.rmtree(run / by)
    (run / damaged).write_bytes((run / damaged).read_bytes()[:-3])
    done = tallyformer(*by.split(), *options, cwd=whole)
    stage = run / damaged.split("/")[0]
    assert done.returncode == 3 and "Delete " in done.stderr, done.stderr
    assert stage.relative_to(whole).as_posix() in done.stderr
    shutil.rmtree(stage)
    made = paste(printed_command(done.stderr), whole)
    assert made.returncode == 0, made.stderr


def test_a_damaged_phase_of_distillation_is_made_again_by_the_command_that_is_printed(
    tmp_path: Path, make_recipe: Callable[..., Path], tallyformer: Any
) -> None:
    """Killed after its first phase, whose result was damaged since."""
    make_recipe(tmp_path, full=True)
    phase = "micro_batch: 4, gradient_accumulation: 1, evaluations: 1"
    phases = f"distill.phases=[{{steps: 5, {phase}}}, {{steps: 300, {phase}}}]"
    options = ["--recipe", "tiny.yaml", "--out", "run", "--set", phases]
    for stage in ("prepare", "pretrain", "teacher"):
        done = tallyformer(stage, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    distill = tmp_path / "run" / "distill"
    result = distill / "phase-1" / "result.json"
    with subprocess.Popen([command(), "distill", *options], cwd=tmp_path, env=ENVIRONMENT) as run:
        while run.poll() is None and not result.is_file():
            time.sleep(0.02)
        run.kill()
    result.write_bytes(result.read_bytes()[:-3])
    refused = tallyformer("distill", *options, "--resume", cwd=tmp_path)
    assert refused.returncode == 3, refused.stderr
    assert f"Delete {result.parent}, then: " in refused.stderr, refused.stderr
    shutil.rmtree(result.parent)
    made = paste(printed_command(refused.stderr), tmp_path)
    assert made.returncode == 0, made.stderr
    assert (distill / "manifest.json").is_file()


def test_an_adapter_for_other_weights_is_made_again_by_the_command_that_is_printed(
    whole: Path, tallyformer: Any
) -> None:
    options = ["--recipe", "tiny.yaml", "--out", "the run", "--set", "pretrain.epochs=0.2"]
    for stage in ("pretrain", "merge"):
        shutil.rmtree(whole / "the run" / stage)
    assert tallyformer("pretrain", *options, cwd=whole).returncode == 0
    done = tallyformer("merge", *options, cwd=whole)
    assert done.returncode == 3 and "was made for another model" in done.stderr, done.stderr
    shutil.rmtree(whole / "the run" / "sft")
    made = paste(printed_command(done.stderr), whole)
    assert made.returncode == 0, made.stderr
    assert tallyformer("merge", *options, cwd=whole).returncode == 0


def test_the_tokenizer_that_inspect_wants_is_made_by_the_command_that_is_printed(
    whole: Path, tallyformer: Any
) -> None:
    options = ["--recipe", "tiny.yaml", "--out", "a new run"]
    done = tallyformer("sft", "inspect", *options, cwd=whole)
    assert done.returncode == 2 and "Make it first: " in done.stderr, done.stderr
    made = paste(printed_command(done.stderr), whole)
    assert made.returncode == 0, made.stderr
    assert tallyformer("sft", "inspect", *options, cwd=whole).returncode == 0


def test_a_damaged_checkpoint_is_passed_over_by_the_command_that_is_printed(
    place: Path, tallyformer: Any
) -> None:
    """Stopped, resumed on a damaged checkpoint, resumed on the one before it."""
    length = ["pretrain.epochs=null", "pretrain.steps=400", "pretrain.checkpoint_minutes=1e-5"]
    changes = [part for change in length for part in ("--set", change)]
    checkpoints = place / "the 'run'" / "pretrain" / "checkpoints"
    with subprocess.Popen(
        [command(), "pretrain", *OPTIONS, *changes],
        cwd=place,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (checkpoints / "previous").is_dir():
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        said = process.communicate()[1]
    assert process.returncode == 143, said
    weights = checkpoints / "last" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    refused = paste(printed_command(said.splitlines()[-1]), place)
    assert refused.returncode == 3 and "the checkpoint is damaged" in refused.stderr, refused.stderr
    assert f"Delete {weights.parent} to resume from {checkpoints / 'previous'}" in refused.stderr
    shutil.rmtree(weights.parent)
    done = paste(printed_command(refused.stderr), place)
    assert done.returncode == 0, done.stderr


def test_the_chat_that_a_run_ends_with_can_be_pasted(whole: Path) -> None:
    [line] = [x for x in (whole / "said.txt").read_text().splitlines() if x.startswith("chat: ")]
    done = paste(f"echo Profit? | {line.removeprefix('chat:').strip()}", whole)
    assert done.returncode == 0 and done.stderr.startswith("Type a question."), done.stderr


def test_the_doctor_that_messages_name_can_be_pasted(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = whole / "a bin" / "tallyformer"
    odd.parent.mkdir()
    odd.symlink_to(command())
    monkeypatch.setattr("sys.argv", [str(odd)])
    done = paste(doctor(), whole)
    assert done.returncode == 0 and "torch" in done.stdout, done.stderr
