"""What a plan finds out about the size of the sources, against counting them."""

from __future__ import annotations

import gzip
import json
import lzma
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tallyformer.config import Recipe, check_recipe
from tallyformer.errors import DataError
from tallyformer.planning.source_sample import SampledSource, sample_sources
from tallyformer.planning.steps import planned_trainings
from tallyformer.preflight.foreseen import SourceSize

SAMPLE = 500_000


def longest_first(documents: int = 3000) -> list[str]:
    """About 12 MB of words, so that the readers' blocks are small against it."""
    chance = random.Random(0)
    words = [f"{chance.randrange(16**6):x}" for _ in range(3000)]
    lengths = sorted((int(5 + 3000 * chance.random() ** 4) for _ in range(documents)), reverse=True)
    return [" ".join(chance.choices(words, k=length)) for length in lengths]


TEXTS = longest_first()
BEYOND = "beyond " * 50_000
JSON_LINES = "".join(json.dumps({"id": "x" * 40, "text": text}) + "\n" for text in TEXTS).encode()


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS}), path, row_group_size=500)


WRITE: dict[str, Callable[[Path], object]] = {
    ".jsonl": lambda path: path.write_bytes(JSON_LINES),
    ".jsonl.gz": lambda path: path.write_bytes(gzip.compress(JSON_LINES)),
    ".jsonl.xz": lambda path: path.write_bytes(lzma.compress(JSON_LINES, preset=1)),
    ".jsonl.zst": lambda path: path.write_bytes(zstandard.ZstdCompressor().compress(JSON_LINES)),
    ".csv": lambda path: path.write_text("text\n" + "".join(f"{text}\n" for text in TEXTS)),
    ".parquet": write_parquet,
}


def recipe_of(folder: Path, sources: Sequence[dict[str, Any]], **sections: Any) -> Recipe:
    tree = {
        "name": "test",
        "data_root": str(folder),
        "model": {"max_position_embeddings": 64},
        "prepare": {"sources": sources, "min_chars": 60},
        "pretrain": {"epochs": 1},
    }
    return check_recipe({**tree, **sections}, "test")


def sampled(folder: Path, **source: Any) -> SampledSource:
    (found,) = sample_sources(recipe_of(folder, [{"name": "s", **source}]), folder, SAMPLE)
    return found


def sizes(texts: Sequence[str]) -> tuple[int, int]:
    kept = [text for text in texts if len(text) >= 60]
    return len(kept), sum(map(len, kept))


@pytest.mark.parametrize("suffix", WRITE)
def test_a_source_that_is_read_whole_is_estimated_well(tmp_path: Path, suffix: str) -> None:
    WRITE[suffix](tmp_path / f"a{suffix}")
    found = sampled(tmp_path, paths=[f"a{suffix}"])
    documents, text_bytes = sizes(TEXTS)
    assert found.text_bytes == pytest.approx(text_bytes, rel=0.02)
    # Rows are counted; which of the shortest are dropped is judged by some of them.
    assert documents <= found.documents <= len(TEXTS)
    assert 0.95 * SAMPLE < found.file.stat().st_size < 2 * SAMPLE


@pytest.mark.parametrize("suffix", WRITE)
def test_a_source_of_which_a_part_is_read_is_estimated_from_its_place_in_the_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITE[suffix](tmp_path / f"a{suffix}")
    WRITE[suffix](tmp_path / f"b{suffix}")
    size = (tmp_path / f"a{suffix}").stat().st_size
    monkeypatch.setattr("tallyformer.planning.source_sample.READ_BYTES", size)
    found = sampled(tmp_path, paths=[f"*{suffix}"])
    assert found.text_bytes == pytest.approx(2 * sizes(TEXTS)[1], rel=0.1)


def test_of_many_files_some_say_what_all_hold(tmp_path: Path) -> None:
    texts = [text for text in TEXTS if len(text) >= 60][::5]
    for number, text in enumerate(texts):
        (tmp_path / f"{number:04d}.txt").write_text(text)
    found = sampled(tmp_path, paths=["*.txt"])
    assert found.text_bytes == sizes(texts)[1]


@pytest.mark.parametrize("limit", [1, 50, 700, 10**6])
def test_no_row_beyond_max_documents_is_counted_or_sampled(tmp_path: Path, limit: int) -> None:
    WRITE[".jsonl.gz"](tmp_path / "a.jsonl.gz")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": BEYOND}) + "\n")
    found = sampled(tmp_path, paths=["a.jsonl.gz", "b.jsonl"], max_documents=limit)
    assert found.text_bytes == pytest.approx(sizes([*TEXTS, BEYOND][:limit])[1], rel=0.05)
    assert ("beyond" in found.file.read_text()) == (limit > len(TEXTS))


def test_max_bytes_is_what_a_source_holds_if_it_has_more(tmp_path: Path) -> None:
    WRITE[".jsonl.zst"](tmp_path / "a.jsonl.zst")
    assert sampled(tmp_path, paths=["*.zst"], max_bytes=100_000).text_bytes == 100_000
    assert sampled(tmp_path, paths=["*.zst"], max_bytes=10**9).text_bytes == pytest.approx(
        sizes(TEXTS)[1], rel=0.02
    )


def test_the_plan_treats_a_source_without_a_whole_sequence_as_training_does(
    tmp_path: Path,
) -> None:
    planned = [SourceSize("a", 9, 10_001, 100), SourceSize("b", 1, 64, 0)]
    sources = [{"name": "a", "corpus": "primer"}, {"name": "b", "corpus": "questions"}]
    (natural,) = planned_trainings(recipe_of(tmp_path, sources), planned, 261, None)
    # 156 sequences in rows of 32 times 6.
    assert natural.steps == 1
    assert natural.epochs_by_source == {"a": 192 / 156}
    weighted = recipe_of(tmp_path, [{**source, "weight": 1} for source in sources])
    with pytest.raises(DataError, match="source 'b' has 64 training tokens; one sequence needs 65"):
        list(planned_trainings(weighted, planned, 261, None))


def test_a_data_set_of_unknown_size_is_what_its_limits_allow(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "set"
    folder.mkdir()
    texts = ["some words " * 60] * 2000
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    size = len(texts[0].strip())
    unknown = sampled(tmp_path, dataset="set")
    assert unknown.text_bytes is unknown.documents is None
    by_rows = sampled(tmp_path, dataset="set", max_documents=1800)
    assert (by_rows.documents, by_rows.text_bytes) == (1800, 1800 * size)
    by_bytes = sampled(tmp_path, dataset="set", max_bytes=10**6)
    assert (by_bytes.documents, by_bytes.text_bytes) == (round(10**6 / size), 10**6)
    small = sampled(tmp_path, dataset="set", max_documents=20)
    assert (small.documents, small.text_bytes) == (20, 20 * size)
