"""Stages are done once, know their own work and notice altered files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallyformer.artifacts.manifest import MANIFEST
from tallyformer.artifacts.run_folder import RunFolder, StageWork
from tallyformer.errors import ArtifactError


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
    with pytest.raises(ArtifactError, match="Add --resume"):
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


def test_an_unfinished_stage_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="tallyformer sft --recipe"):
        RunFolder(tmp_path).manifest("sft")
