"""What the system refuses is one line with the place, the reason and the advice for that reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from tallyformer.artifacts.atomic import atomic_file, atomic_folder, write_json
from tallyformer.errors import ArtifactError


@pytest.fixture
def small_disk(make_disk: Callable[[str], Path]) -> Path:
    return make_disk("size=64k")


def refusal(path: Path) -> str:
    """What is said of a JSON file that cannot be written."""
    with pytest.raises(ArtifactError) as caught:
        write_json(path, 1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def bytes_of(folder: Path) -> None:
    (folder / "x").write_bytes(bytes(100_000))


def tensors(folder: Path) -> None:
    save_file({"w": np.zeros(100_000, dtype=np.uint8)}, folder / "x.safetensors")


def a_tokenizer(folder: Path) -> None:
    vocabulary = {str(n): n for n in range(20_000)}
    Tokenizer(models.BPE(vocab=vocabulary, merges=[])).save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("write", [bytes_of, tensors, a_tokenizer])
def test_a_full_disk_is_told_whoever_writes(small_disk: Path, write: object) -> None:
    with (
        pytest.raises(ArtifactError, match=r"model: cannot be written \(No space.*Free disk"),
        atomic_folder(small_disk / "model") as folder,
    ):
        write(folder)  # type: ignore[operator]
    assert not list(small_disk.iterdir())


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    write_json(small_disk / "x.json", "old")
    with (
        pytest.raises(ArtifactError, match="Free disk space"),
        atomic_file(small_disk / "x.json") as file,
    ):
        file.write(bytes(100_000))
    assert (small_disk / "x.json").read_text() == '"old"\n'
    assert [path.name for path in small_disk.iterdir()] == ["x.json"]


def test_a_disk_that_cannot_be_written_is_told(make_disk: Callable[[str], Path]) -> None:
    assert "Choose a folder on a file system that can be written" in refusal(
        make_disk("ro") / "x.json"
    )


def test_the_advice_fits_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    expected = {
        "n" * 300: "Shorten the names",
        f"{'n' * 300}/x.json": "Shorten the names",
        "file/x.json": "is in the way: move it away",
        "dangling/x.json": "a link that leads nowhere, is in the way",
        "folder": "A folder is in the way of the file",
        "loop/x.json": "is in the way",
    }
    for name, advice in expected.items():
        message = refusal(tmp_path / name)
        assert advice in message and "Free disk" not in message
        assert str(tmp_path) in message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dangling", "file", "folder", "loop"]


def test_a_folder_that_this_user_may_not_write_is_told(ordinary_user: Path) -> None:
    ordinary_user.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert "Allow it for this user" in refusal(ordinary_user / "x.json")
    finally:
        ordinary_user.chmod(stat.S_IRWXU)


def test_another_place_that_is_refused_is_named_itself(tmp_path: Path) -> None:
    other = tmp_path / ("n" * 300)
    with (
        pytest.raises(ArtifactError, match=f"^{other}: .*Shorten"),
        atomic_folder(tmp_path / "runs" / "model"),
    ):
        other.write_text("x")
    assert not (tmp_path / "runs" / "model").exists()


def test_names_outlast_a_power_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file, its folder, and the folders above that are new, before and after the rename."""
    synced: list[str] = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(place.relative_to(tmp_path).as_posix())
        really(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_folder(tmp_path / "run" / "stage" / "best") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_text("x")
    partial = "run/stage/best.partial"
    assert synced[:3] == [".", "run", "run/stage"]
    assert set(synced[3:-1]) == {partial, f"{partial}/inner", f"{partial}/inner/weights"}
    assert synced[-1] == "run/stage"
