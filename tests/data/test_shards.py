from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.artifacts.manifest import write_manifest
from tallyformer.data.shard_writer import ShardWriter
from tallyformer.data.shards import Shards, id_type, read_shards
from tallyformer.errors import ArtifactError

EOT = 7
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def write(folder: Path, documents: list[list[int]], limit: int, *, vocab: int = 400) -> None:
    """A finished `prepare` folder with one source; documents go to both splits."""
    files: list[Path] = []
    for split in ("train", "validation"):
        with ShardWriter(folder / split / "s", id_type(vocab), limit) as writer:
            for first in range(0, len(documents), 2):
                group = [[*ids, EOT] for ids in documents[first : first + 2]]
                rows = [(0, first + n + 1) for n in range(len(group))]
                lengths = np.array([len(ids) for ids in group])
                writer.add(np.concatenate(group), lengths, np.array(rows))
        files += writer.paths
    (folder / "files.json").write_text(json.dumps({"s": ["in.jsonl"]}))
    write_manifest(
        folder,
        stage="prepare",
        config={"sources": [{"name": "s", "weight": None}]},
        seed=1,
        inputs={"tokenizer": "f"},
        metrics={"dtype": id_type(vocab).str, "eot_id": EOT, "vocab_size": vocab},
        files=[*files, folder / "files.json"],
        versions={},
        now=NOW,
    )


def read(folder: Path, fingerprint: str = "f") -> Shards:
    return read_shards(folder, tokenizer_fingerprint=fingerprint, made_by="tallyformer prepare")


@given(
    documents=st.lists(
        st.lists(st.integers(10, 399), min_size=1, max_size=9), min_size=1, max_size=12
    ),
    limit=st.integers(1, 40),
    data=st.data(),
)
@settings(max_examples=25)
def test_windows_of_the_stream_equal_windows_of_the_documents(
    documents: list[list[int]],
    limit: int,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    write(folder, documents, limit)
    stream = read(folder).train["s"]
    whole = [i for ids in documents for i in [*ids, EOT]]
    owner = [n for n, ids in enumerate(documents, start=1) for _ in [*ids, EOT]]
    assert stream.tokens == len(whole)
    length = data.draw(st.integers(1, len(whole)))
    starts = data.draw(st.lists(st.integers(0, len(whole) - length), min_size=1, max_size=4))
    gathered = stream.gather(np.array(starts), length)
    assert gathered.dtype == np.int64
    assert gathered.tolist() == [whole[s : s + length] for s in starts]
    for start in starts:
        rows = sorted(set(owner[start : start + length]))
        assert stream.documents(start, length) == [f"s/in.jsonl:{row}" for row in rows]
    for shard in stream.shards:
        assert len(shard.tokens) <= limit or len(shard.starts) == 1
        assert (shard.tokens[shard.starts[1:].astype(int) - 1] == EOT).all()


@pytest.mark.parametrize(("vocab", "size"), [(65_536, 2), (65_537, 4)])
def test_ids_take_two_bytes_up_to_65536_and_four_beyond(
    tmp_path: Path, vocab: int, size: int
) -> None:
    write(tmp_path, [[vocab - 1]], 100, vocab=vocab)
    assert (tmp_path / "train/s/00000.bin").stat().st_size == 2 * size
    stream = read(tmp_path).train["s"]
    assert stream.gather(np.array([0]), 2).tolist() == [[vocab - 1, EOT]]


def test_an_interrupted_writer_leaves_no_shard(tmp_path: Path) -> None:
    def interrupted() -> Iterator[None]:
        with ShardWriter(tmp_path, id_type(400), 100) as writer:
            writer.add(np.array([1, EOT]), np.array([2]), np.array([[0, 1]]))
            raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        next(interrupted())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train/s/00000.bin", "train/s/00000.idx", "files.json"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", r"\d+ bytes, the manifest says \d+"),
        ("altered", "checksum differs from the manifest"),
        ("missing", "missing, though the manifest lists it"),
    ],
)
def test_a_damaged_file_is_named_with_the_fix(
    tmp_path: Path, name: str, damage: str, message: str
) -> None:
    write(tmp_path, [[10, 11, 12], [13]], 100)
    file = tmp_path / name
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(ArtifactError, match=f"{name}: {message}.*tallyformer prepare") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unfinished_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not there or not finished"):
        read(tmp_path)


def test_shards_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [[10]], 100)
    with pytest.raises(ArtifactError, match="tokenised with another tokenizer"):
        read(tmp_path, fingerprint="g")
