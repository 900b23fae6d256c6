"""Whatever a kill leaves, the newest checkpoint vouches for one whole set of best weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallyformer.errors import ArtifactError
from tallyformer.training.best_weights import BestWeights


def written(folder: Path, text: str) -> tuple[BestWeights, dict[str, dict[str, object]]]:
    best = BestWeights(folder, "Make it again")

    def save(out: Path) -> None:
        (out / "inner").mkdir()
        (out / "inner" / "weights").write_text(text, encoding="utf-8")

    return best, best.write(save)


def content(folder: Path) -> str:
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return (folder / "inner" / "weights").read_text(encoding="utf-8")


@pytest.mark.parametrize("killed", ["before the checkpoint", "before", "within", "after"])
def test_the_weights_are_those_of_the_newest_checkpoint(tmp_path: Path, killed: str) -> None:
    folder = tmp_path / "best"
    best, old = written(folder, "old")
    best.publish()
    best, new = written(folder, "new")
    known = new
    if killed == "before the checkpoint":
        known = old
    elif killed == "within":
        folder.replace(tmp_path / "best.old.partial")
    elif killed == "after":
        best.publish()
    assert BestWeights(folder, "").settle(known, is_newest=True)
    assert content(folder) == ("old" if known is old else "new")


def test_an_older_checkpoint_does_not_know_newer_weights(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    best, old = written(folder, "old")
    best.publish()
    best, _ = written(folder, "new")
    best.publish()
    assert not best.settle(old, is_newest=False)
    with pytest.raises(ArtifactError, match=r"weights: checksum differs.*Make it again"):
        best.settle(old, is_newest=True)


def test_without_a_checkpoint_nothing_is_left_of_fresh_weights(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    best, _ = written(folder, "new")
    assert best.settle({}, is_newest=True)
    assert not list(tmp_path.iterdir())
