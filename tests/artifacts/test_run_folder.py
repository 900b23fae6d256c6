"""Stages are done once, know their own work and notice altered files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.manifest import MANIFEST, file_entry, read_manifest
from tallyformer.artifacts.run_folder import RunFolder, StageWork
from tallyformer.errors import ArtifactError

from .damage import damages


def work(folder: Path, *, steps: int = 1, seed: int = 1, resume: bool = True) -> StageWork:
    return StageWork(
        RunFolder(folder), "pretrain", {"steps": steps}, seed, {"prepare": "abc"}, resume
    )


def finished(folder: Path) -> StageWork:
    stage = work(folder)
    assert stage.already_done() is None
    (stage.folder / "weights").write_bytes(b"12345")
    stage.finish(metrics={"loss": 1.5}, files=[Path("weights")])
    return stage


def test_finished_work_is_recognised_and_its_metrics_come_back(tmp_path: Path) -> None:
    finished(tmp_path)
    manifest = work(tmp_path).already_done()
    assert manifest is not None
    assert manifest.metrics == {"loss": 1.5}
    assert manifest.files["weights"]["bytes"] == 5
    assert manifest.inputs == {"prepare": "abc"}
    assert manifest.versions["python"]


@pytest.mark.parametrize("changes", [{"steps": 2}, {"seed": 2}])
def test_other_work_in_the_folder_is_an_error_and_nothing_is_lost(
    tmp_path: Path, changes: dict[str, int]
) -> None:
    stage = finished(tmp_path)
    with pytest.raises(ArtifactError, match="belongs to another run"):
        work(tmp_path, **changes).already_done()
    assert (stage.folder / "weights").read_bytes() == b"12345"


def test_started_work_is_gone_on_with_only_when_asked(tmp_path: Path) -> None:
    assert work(tmp_path).already_done() is None
    with pytest.raises(ArtifactError, match=r"or resume with: tallyformer .* --resume"):
        work(tmp_path, resume=False).already_done()
    with pytest.raises(ArtifactError, match="belongs to another run"):
        work(tmp_path, steps=9).already_done()
    assert work(tmp_path, resume=True).already_done() is None


def test_a_claim_that_was_cut_off_claims_nothing(tmp_path: Path) -> None:
    """As a kill, or a disk that fills up, leaves it."""
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "work.txt.partial").write_text("")
    assert work(tmp_path).already_done() is None
    assert [f.name for f in (tmp_path / "pretrain").iterdir()] == ["work.txt"]


def test_files_are_named_absolutely_or_from_a_relative_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = work(Path("run"))
    stage.already_done()
    (stage.folder / "weights").write_bytes(b"12345")
    manifest = stage.finish(metrics={}, files=[stage.folder / "weights"])
    assert list(manifest.files) == ["weights"]


def test_a_folder_with_files_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="no pretrain stage wrote"):
        work(tmp_path).already_done()
    assert (tmp_path / "pretrain" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"1234", "4 bytes"), (b"12346", "checksum differs"), (None, "missing")],
)
def test_an_altered_file_is_named(tmp_path: Path, content: bytes | None, expected: str) -> None:
    stage = finished(tmp_path)
    file = stage.folder / "weights"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(ArtifactError, match=expected) as caught:
        work(tmp_path).already_done()
    assert str(file) in str(caught.value)
    assert "tallyformer pretrain" in str(caught.value)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    stage = finished(tmp_path)
    (stage.folder / MANIFEST).write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        work(tmp_path).already_done()


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_file_that_has_changed_since_it_was_written_is_not_signed(
    tmp_path: Path, damage: str
) -> None:
    stage = work(tmp_path)
    stage.already_done()
    weights = stage.folder / "weights"
    weights.write_bytes(b"12345")
    files = {weights: file_entry(weights)}
    if damage == "delete":
        weights.unlink()
    else:
        weights.write_bytes(b"12346" if damage == "flip" else b"1234")
    with pytest.raises(ArtifactError, match=str(weights)):
        stage.finish(metrics={}, files=files)
    assert not (stage.folder / MANIFEST).exists()


def test_what_differs_is_named_in_the_recipes_words(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    config = {"model": {"dropout": 0.1, "blocks": [{"size": 1}]}, "train": {"steps": 24}}
    sections = {"model": "model", "train": "pretrain"}

    def stage(config: dict[str, Any], seed: int, inputs: dict[str, str]) -> StageWork:
        return StageWork(run, "pretrain", config, seed, inputs, sections=sections)

    def said(*other: Any) -> str:
        with pytest.raises(ArtifactError, match="belongs to another run") as caught:
            stage(*other).already_done()
        return str(caught.value)

    def assert_all() -> None:
        changed = {**config, "train": {"steps": 30}}
        assert "(pretrain.steps is 24 there and 30 in this recipe)" in said(changed, 1, {"a": "1"})
        changed = {**config, "model": {"dropout": None, "blocks": [{"size": 2}]}}
        message = said(changed, 1, {"a": "1"})
        assert "model.blocks[0].size is 1 there and 2 in this recipe; " in message
        assert "model.dropout is 0.1 there and null in this recipe)" in message
        assert "(seed is 1 there and 2 in this recipe)" in said(config, 2, {"a": "1"})
        assert "(a has changed since)" in said(config, 1, {"a": "2"})
        assert "has read a, which this recipe does not; it has not read b)" in said(
            config, 1, {"b": "1"}
        )
        assert ", and 1 more)" in said({"model": {}, "train": {"steps": 2}}, 2, {"a": "1"})

    assert stage(config, 1, {"a": "1"}).already_done() is None
    assert_all()
    (run.stage("pretrain") / "weights").write_bytes(b"1")
    stage(config, 1, {"a": "1"}).finish(metrics={}, files=[Path("weights")])
    assert_all()


@pytest.mark.parametrize(("name", "damage"), list(damages()))
@pytest.mark.parametrize("file", ["work.txt", MANIFEST])
def test_a_damaged_record_of_any_shape_is_one_line(
    tmp_path: Path, file: str, name: str, damage: Callable[[Path], None]
) -> None:
    stage = finished(tmp_path)
    if file == "work.txt":
        (stage.folder / MANIFEST).unlink()
        stage.claim()
    damage(stage.folder / file)
    with pytest.raises(ArtifactError, match=f"{file}: (damaged|missing|cannot)") as caught:
        work(tmp_path).already_done()
    assert "\n" not in str(caught.value)


def test_work_of_an_earlier_version_is_not_gone_on_with(tmp_path: Path) -> None:
    stage = finished(tmp_path)
    manifest = json.loads((stage.folder / MANIFEST).read_text(encoding="utf-8"))
    for name in ("check", "result", "records"):
        del manifest[name]
    (stage.folder / MANIFEST).write_text(json.dumps({**manifest, "format": 1}), encoding="utf-8")
    assert read_manifest(stage.folder, made_by="").metrics == {"loss": 1.5}
    with pytest.raises(ArtifactError, match="earlier version"):
        work(tmp_path).already_done()
    (stage.folder / MANIFEST).unlink()
    (stage.folder / "work.txt").write_text("0" * 64 + "\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match="earlier version"):
        work(tmp_path).already_done()


def test_a_result_is_bound_to_its_files_but_not_to_its_times(tmp_path: Path) -> None:
    def result(name: str, weights: bytes, record: bytes) -> str:
        stage = work(tmp_path / name)
        stage.already_done()
        (stage.folder / "weights").write_bytes(weights)
        (stage.folder / "log").write_bytes(record)
        files, records = [Path("weights")], [Path("log")]
        manifest = stage.finish(metrics={}, files=files, records=records)
        assert stage.run.manifest("pretrain", check=True) == manifest
        (stage.folder / "log").write_bytes(record + b"!")
        with pytest.raises(ArtifactError, match="log"):
            stage.run.manifest("pretrain", check=True)
        return manifest.result

    first = result("a", b"1", b"a")
    assert result("b", b"1", b"b") == first
    assert result("c", b"2", b"a") != first


def test_an_unfinished_stage_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="tallyformer sft --recipe"):
        RunFolder(tmp_path).manifest("sft")
