"""Data sets of the hub's form: their files by name, and what names them in a fingerprint."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tallyformer.config.data import PairSource, TextSource
from tallyformer.data.sources import RowSource, dataset_files, text_source
from tallyformer.errors import DataError

pytest.importorskip("datasets")


def source(root: Path, **section: Any) -> RowSource:
    found = TextSource(name="s", dataset="set", **section)
    return text_source(found, data_root=str(root), seed=0, max_chars=99)


def texts(found: RowSource) -> list[Any]:
    return [dict(row.payload)["text"] for row in found.rows()]  # type: ignore[arg-type]


@pytest.fixture
def with_script(tmp_path: Path) -> Path:
    """A data set whose repository holds a loading script, and compressed files."""
    folder = tmp_path / "set" / "data" / "v2"
    folder.mkdir(parents=True)
    (tmp_path / "set" / "set.py").write_text("raise SystemExit('not to be run')")
    for name in ("train-0", "train-1", "validation-0"):
        line = json.dumps({"text": name, "source": "s"}) + "\n"
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(line.encode()))
    return tmp_path


def test_the_files_of_a_data_set_with_a_loading_script_can_be_named(with_script: Path) -> None:
    with pytest.raises(DataError, match="scripts are no longer supported"):
        texts(source(with_script))
    named = source(with_script, data_files=("data/v2/train-*.json.gz",))
    assert texts(named) == ["train-0", "train-1"]
    assert texts(named) == ["train-0", "train-1"]


def test_a_hub_name_with_files_has_their_addresses_at_its_revision(tmp_path: Path) -> None:
    section = TextSource(
        name="s", dataset="x/y", revision="refs/pr/1", data_files=("a/*.parquet", "b.parquet")
    )
    place, kind, urls = dataset_files(section, str(tmp_path))
    assert (place, kind) == ("x/y", "parquet")
    at = "hf://datasets/x/y@refs%2Fpr%2F1"
    assert urls == [f"{at}/a/*.parquet", f"{at}/b.parquet"]


@pytest.mark.parametrize(
    "changes", [{"revision": "1a2b"}, {"data_files": ("a.csv",)}, {"dataset_config": "v2"}]
)
def test_what_is_read_of_the_hub_is_fingerprinted(tmp_path: Path, changes: dict[str, Any]) -> None:
    plain, changed = (source(tmp_path, **c).fingerprints() for c in ({}, changes))
    assert plain.keys() == changed.keys() and plain != changed


@pytest.mark.parametrize("files", [("a.csv", "b.parquet"), ("a.docx",), ("a.gz",)])
def test_files_of_several_or_unknown_kinds_are_refused(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    with pytest.raises(DataError, match=r"must all be of one of the kinds \.json, \.jsonl"):
        source(tmp_path, data_files=files)


def test_a_local_folder_has_no_revision(with_script: Path) -> None:
    with pytest.raises(DataError, match="revision 'v1' is for a hub name"):
        source(with_script, revision="v1")


@pytest.mark.parametrize("kind", [TextSource, PairSource])
@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"corpus": "questions", "revision": "v1"}, "revision is for dataset"),
        ({"paths": ["a"], "data_files": ["b.csv"]}, "data_files is for dataset"),
        ({"dataset": "x", "dataset_config": "c", "data_files": ["b.csv"]}, "take the place of"),
    ],
)
def test_what_does_not_apply_is_refused(kind: Any, section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(name="s", **section)
