"""An input that is not what a dry run saw, or changes during a run, is refused by its name."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import DataError, UsageError
from tallyformer.preflight import expected
from tallyformer.preflight.expected import check_expected, code_of, inputs_of
from tallyformer.stages.run import dry_run_stages, run_stages, stages_of

from ..small_run import write_texts


class Listener:
    """Does something when a stage begins, and notes which have."""

    def __init__(self, **at: Callable[[], object]) -> None:
        self.at = at
        self.begun: list[str] = []

    def begins(self, stage: str, number: int, count: int, *, finished: bool) -> None:
        self.begun.append(stage)
        self.at.get(stage, lambda: None)()

    def ends(self, stage: str, folder: Path, manifest: Any, *, finished: bool) -> None: ...


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_texts(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def recipe(data: Path, make_recipe: Any) -> Recipe:
    """Short: one step a training, no teacher."""
    made: Recipe = make_recipe(
        data_root=str(data),
        distill=None,
        pretrain={"steps": 1, "evaluations": 1, "micro_batch": 4},
        sft={
            "steps": 1,
            "evaluations": 1,
            "micro_batch": 4,
            "sources": [{"name": "pairs", "paths": ["pairs.jsonl"]}],
        },
    )
    return made


def dry_code(recipe: Recipe, run: RunFolder) -> str:
    command = dry_run_stages(recipe, run, stages_of(recipe), resume=True).command
    found = re.search(r" --expect (\S+)", command)
    assert found, command
    return found[1]


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a truncated text": (lambda d: os.truncate(d / "texts/7.txt", 20), "prepare source 'words'"),
    "one letter": (
        lambda d: (d / "texts/7.txt").write_bytes(
            b"x" + (d / "texts/7.txt").read_bytes()[1:],
        ),
        "prepare source 'words'",
    ),
    "a text less": (lambda d: (d / "texts/7.txt").unlink(), "prepare source 'words'"),
    "a text more": (lambda d: (d / "texts/x.txt").write_text("Bonds."), "prepare source 'words'"),
    "a name": (lambda d: (d / "texts/7.txt").rename(d / "texts/z.txt"), "prepare source 'words'"),
    "pairs": (lambda d: os.truncate(d / "pairs.jsonl", 2000), "sft source 'pairs'"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("whole", [expected.WHOLE, 0])
def test_whatever_changes_between_dry_run_and_run_is_named_and_nothing_is_written(
    change: str, whole: int, recipe: Recipe, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """With inputs read whole, and with inputs that are too large for it."""
    monkeypatch.setattr(expected, "WHOLE", whole)
    run = RunFolder(tmp_path / "run")
    run = dataclasses.replace(run, expect=dry_code(recipe, run))
    alter, name = CHANGES[change]
    alter(data)
    with pytest.raises(DataError) as error:
        run_stages(recipe, run, stages_of(recipe), resume=True, announcer=Listener())
    said = str(error.value)
    assert said.startswith(f"{name} has changed since the dry run (now ")
    assert said.endswith(" --dry-run") and "--expect" not in said and "\n" not in said
    assert not run.path.exists()


def test_the_inputs_of_the_dry_run_are_taken_wherever_they_have_been_moved(
    recipe: Recipe, data: Path, tmp_path: Path
) -> None:
    code = dry_code(recipe, RunFolder(tmp_path / "run"))
    moved = data.rename(tmp_path / "moved")
    for file in moved.rglob("*.txt"):
        os.utime(file)
    there = recipe.model_copy(update={"data_root": str(moved)})
    assert code_of(inputs_of(there, stages_of(there))) == code


def test_a_code_lasts_for_the_whole_run(recipe: Recipe, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    code = dry_code(recipe, run)
    run_stages(recipe, run, stages_of(recipe)[:3], resume=True, announcer=Listener())
    assert dry_code(recipe, run) == code
    expecting = dataclasses.replace(run, expect=code)
    assert dry_code(recipe, expecting) == code
    assert expecting.resume_command("run").endswith(f" --expect {code} --resume")


@pytest.mark.parametrize("code", ["", "x", "0123456", "0123abcd-", "0123ABCD"])
def test_what_is_not_a_code_is_refused(code: str) -> None:
    with pytest.raises(UsageError, match=r"is not what a dry run prints. Copy it from: LOOK"):
        check_expected(code, [], "LOOK")


def test_a_code_of_another_recipe_is_refused(recipe: Recipe) -> None:
    with pytest.raises(UsageError, match=r"is of 1 inputs, and the recipe has 2 now"):
        check_expected("0123abcd", inputs_of(recipe, stages_of(recipe)), "LOOK")


@pytest.mark.parametrize("stage", ["prepare", "sft"])
def test_an_input_that_changes_during_a_run_is_named_before_its_stage_reads_it(
    stage: str, recipe: Recipe, data: Path, tmp_path: Path
) -> None:
    """Pairs may be read days after the run began."""
    file = data / ("texts/7.txt" if stage == "prepare" else "pairs.jsonl")
    before = file.read_bytes()
    run, listener = (
        RunFolder(tmp_path / "run"),
        Listener(**{stage: lambda: file.write_bytes(before[: len(before) // 2])}),
    )
    with pytest.raises(DataError, match=f"{stage} source '.*' has changed since this run began"):
        run_stages(recipe, run, stages_of(recipe), resume=True, announcer=listener)
    assert listener.begun[-1] == stage and not run.is_finished(stage)
    file.write_bytes(before)
    run_stages(recipe, run, stages_of(recipe)[:4], resume=True, announcer=Listener())


def test_a_teacher_a_tokenizer_and_shipped_texts_are_inputs_too(
    make_recipe: Any, tmp_path: Path
) -> None:
    for name in ("teacher", "vocabulary"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    recipe = make_recipe(
        data_root=str(tmp_path),
        tokenizer={"kind": "pretrained", "source": "vocabulary"},
        teacher={"source": "teacher"},
        prepare={"sources": [{"name": "primer", "corpus": "primer"}]},
        sft=None,
    )
    before = inputs_of(recipe, stages_of(recipe))
    assert [one.name for one in before] == [
        "tokenizer.source",
        "prepare source 'primer'",
        "teacher.source",
    ]
    (tmp_path / "teacher" / "config.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "vocabulary" / "config.json").write_text(json.dumps({"a": 1}))
    after = inputs_of(recipe, stages_of(recipe))
    same = [a.digest == b.digest for a, b in zip(before, after, strict=True)]
    assert same == [False, True, False]
