"""What a model wrote at each validation is shown as far as it can be read, and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.monitor import written
from tallyformer.monitor.runs import RunsFolder


@pytest.fixture
def folder(tiny: tuple[Recipe, RunFolder], tmp_path: Path) -> Path:
    shutil.copytree(tiny[1].path, tmp_path / "runs" / "tiny")
    return tmp_path / "runs"


def _file(folder: Path) -> Path:
    return folder / "tiny" / "pretrain" / "samples.jsonl"


def _line(step: object, *texts: str) -> str:
    samples = [{"prompt": "a", "text": text, "expected": ""} for text in texts]
    return json.dumps({"step": step, "samples": samples}) + "\n"


def test_each_validation_of_a_run_can_be_looked_at(folder: Path) -> None:
    runs = RunsFolder(folder)
    last = runs.written("tiny", "pretrain")
    assert last is not None and last.steps == [2, 4, 6] and last.step == 6
    assert len(last.samples) == 3 and all(sample.question for sample in last.samples)
    first = runs.written("tiny", "pretrain", 2)
    assert first is not None and first.step == 2
    assert [s.question for s in first.samples] == [s.question for s in last.samples]
    unknown = runs.written("tiny", "pretrain", 3)
    assert unknown == last


def test_what_is_added_is_seen_once_its_line_is_whole(folder: Path) -> None:
    runs = RunsFolder(folder)
    runs.written("tiny", "pretrain")
    whole = _line(8, "new")
    with _file(folder).open("a") as file:
        file.write(whole[:20])
        file.flush()
        before = runs.written("tiny", "pretrain")
        file.write(whole[20:])
        file.flush()
        after = runs.written("tiny", "pretrain")
    assert before is not None and before.step == 6
    assert after is not None and after.step == 8 and after.samples[0].answer == "new"


def test_a_run_without_such_a_file_has_none_and_no_other_name_has_any(folder: Path) -> None:
    _file(folder).unlink()
    runs = RunsFolder(folder)
    none = runs.written("tiny", "pretrain")
    assert none is not None and (none.steps, none.step, none.problem) == ([], None, "")
    for run, curve in (("tiny", "evaluate"), ("tiny", "../x"), ("..", "pretrain"), ("x", "y")):
        assert runs.written(run, curve) is None


@pytest.mark.parametrize(
    "bad",
    [
        "[]",
        "{}",
        '{"step": true, "samples": []}',
        '{"step": -1, "samples": []}',
        '{"step": 1e400}',
        '{"step": ' + "9" * 5000 + "}",
        "[" * 100_000,
        _line(2, "a step that was already there").strip(),
        "\x00\xff",
    ],
)
def test_lines_that_are_none_are_left_out(folder: Path, bad: str) -> None:
    file = _file(folder)
    file.write_bytes(file.read_bytes() + bad.encode("latin-1") + b"\n" + _line(9, "b").encode())
    seen = RunsFolder(folder).written("tiny", "pretrain")
    assert seen is not None and seen.steps == [2, 4, 6, 9]
    assert [sample.answer for sample in seen.samples] == ["b"]


def test_samples_of_any_shape_and_length_are_texts_of_a_bounded_length(folder: Path) -> None:
    odd = [{"prompt": 3, "text": "x" * 10_000}, 7, None, {"text": "\ud800"}]
    _file(folder).write_text(json.dumps({"step": 1, "samples": odd}) + "\n" + _line(2, *"y" * 50))
    runs = RunsFolder(folder)
    first, second = runs.written("tiny", "pretrain", 1), runs.written("tiny", "pretrain")
    assert first is not None and second is not None
    assert [len(sample.answer) for sample in first.samples] == [4001, 1]
    assert first.samples[0].question == ""
    assert len(second.samples) == 16


def test_of_a_long_file_the_newest_validations_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "_MOST_BYTES", 1000)
    monkeypatch.setattr(written, "MOST_STEPS", 5)
    _file(folder).write_text("".join(_line(step, "z") for step in range(100)))
    seen = RunsFolder(folder).written("tiny", "pretrain")
    assert seen is not None and seen.steps == [95, 96, 97, 98, 99]
    assert seen.samples[0].answer == "z"


def test_a_damaged_file_is_a_state(
    folder: Path, shapes_of_damage: dict[str, Callable[[Path], None]]
) -> None:
    file = _file(folder)
    whole = file.read_bytes()
    runs = RunsFolder(folder)
    for shape, damage in shapes_of_damage.items():
        file.write_bytes(whole)
        damage(file)
        seen = runs.written("tiny", "pretrain")
        assert seen is not None, shape
        assert seen.steps or not seen.samples, shape
        assert str(folder) not in seen.problem, shape
        shutil.rmtree(file, ignore_errors=True)
        file.unlink(missing_ok=True)


def test_a_link_that_leads_out_and_what_is_no_file_are_not_read(
    folder: Path, tmp_path: Path
) -> None:
    secret, file = tmp_path / "secret", _file(folder)
    secret.write_text(_line(1, "secret"))
    file.unlink()
    file.symlink_to(secret)
    seen = RunsFolder(folder).written("tiny", "pretrain")
    assert seen is not None and not seen.samples
    assert seen.problem == "samples.jsonl is a link that leads out of the folder"
    file.unlink()
    os.mkfifo(file)
    seen = RunsFolder(folder).written("tiny", "pretrain")
    assert seen is not None and seen.problem == "samples.jsonl is not a file"
