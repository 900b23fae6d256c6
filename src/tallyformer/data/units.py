"""One unit of work: a chunk of rows, cleaned, hashed and tokenised into one file.

Units are cut by the size of the raw rows, so they are the same for any number of processes; a
unit's file appears whole or not at all, so a killed run resumes with the units that are missing.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tallyformer.artifacts.atomic import atomic_file
from tallyformer.data.filters import BEYOND_MAX_BYTES
from tallyformer.data.passages import SplitSource
from tallyformer.data.rows import Row, row_bytes
from tallyformer.data.shards import id_type
from tallyformer.data.sources import RowSource
from tallyformer.errors import ArtifactError
from tallyformer.tokenizer import Tokenizer

CHUNK_BYTES = 4 << 20
CHUNK_ROWS = 10_000


@dataclass(frozen=True)
class TokenizerName:
    """Which tokenizer each process loads."""

    folder: Path
    fingerprint: str


@dataclass(frozen=True)
class Chunk:
    """Rows for one process.

    Attributes:
        path: where the unit's file goes.
        files: names of the input files by number.
        field: the field that holds the text.
        rows: in order.
        read: what the rows take off the source's sizes.
    """

    path: Path
    files: Mapping[int, str]
    field: str
    rows: Sequence[Row]
    read: int


@dataclass(frozen=True)
class Unit:
    """What a unit's file holds; n documents passed the filters.

    Attributes:
        tokens: ids of all documents, each with its end-of-text.
        lengths: ids of each, int64 (n,).
        text_bytes: UTF-8 bytes of each, int64 (n,).
        digests: content hash of each, uint64 (n, 2).
        validation: which belong to the validation split, bool (n,).
        origins: (file number, row) of each, uint64 (n, 2).
        rows: how many rows came in; of a source that is cut into passages, how many documents.
        dropped: how many rows were dropped, by reason.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    text_bytes: np.ndarray
    digests: np.ndarray
    validation: np.ndarray
    origins: np.ndarray
    rows: int
    dropped: Mapping[str, int]


def chunks_of(
    source: RowSource, number: int, folder: Path, max_documents: int | None
) -> Iterator[Chunk]:
    """Cut a source's rows into units of about `CHUNK_BYTES`.

    Args:
        source: the source.
        number: its place in the recipe; with the chunk's number it names the unit's file.
        folder: where units go.
        max_documents: read at most this many rows.
    """
    rows: list[Row] = []
    size = chunks = 0
    for row in itertools.islice(source.rows(), max_documents):
        rows.append(row)
        size += row_bytes(row)
        if size >= CHUNK_BYTES or len(rows) >= CHUNK_ROWS:
            yield _chunk(source, number, chunks, folder, rows)
            rows, size, chunks = [], 0, chunks + 1
    if rows:
        yield _chunk(source, number, chunks, folder, rows)


def process(chunk: Chunk, split: SplitSource, tokenizer: TokenizerName) -> None:
    """Clean and tokenise a chunk and write the unit's file.

    Raises:
        DataError: a row cannot be used.
        ArtifactError: the disk is full.
    """
    write_unit(chunk.path, make_unit(chunk, split, cached_tokenizer(tokenizer)))


def make_unit(chunk: Chunk, split: SplitSource, tokenizer: Tokenizer) -> Unit:
    """Clean and tokenise a chunk; the same chunk always gives the same unit."""
    dropped: Counter[str] = Counter()
    table: list[tuple[int, int, bytes, bool, int, int]] = []
    pieces: list[np.ndarray] = []
    dtype = id_type(tokenizer.vocab_size)
    for row, text, digest, held_out in split.documents(
        chunk.rows, chunk.files, chunk.field, dropped
    ):
        ids = tokenizer.encode_to_numpy(text)
        pieces += [ids.astype(dtype), np.array([tokenizer.eot_id], dtype=dtype)]
        size = len(text) if text.isascii() else len(text.encode())
        table.append((len(ids) + 1, size, digest, held_out, row.file, row.number))
    lengths, sizes, digests, held, files, numbers = list(zip(*table, strict=True)) or [()] * 6
    return Unit(
        tokens=np.concatenate(pieces) if pieces else np.empty(0, dtype=dtype),
        lengths=np.array(lengths, dtype=np.int64),
        text_bytes=np.array(sizes, dtype=np.int64),
        digests=np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2),
        validation=np.array(held, dtype=bool),
        origins=np.array([files, numbers], dtype=np.uint64).reshape(2, -1).T,
        rows=len(table) + dropped.total(),
        dropped=dict(dropped),
    )


def write_unit(path: Path, unit: Unit) -> None:
    """Write a unit's file atomically."""
    arrays: dict[str, Any] = {
        name: value for name, value in vars(unit).items() if isinstance(value, np.ndarray)
    }
    with atomic_file(path) as file:
        np.savez(file, counts=json.dumps([unit.rows, dict(unit.dropped)]), **arrays)


def read_unit(path: Path) -> Unit:
    """Read a unit's file.

    Raises:
        ArtifactError: it is damaged; each array has a checksum.
    """
    with _opened(path) as arrays:
        rows, dropped = json.loads(str(arrays["counts"]))
        values = {name: arrays[name] for name in arrays.files if name != "counts"}
        return Unit(**values, rows=rows, dropped=dropped)


def read_digests(path: Path) -> np.ndarray:
    """The content hashes of a unit's file alone, uint64 (n, 2)."""
    return _array(path, "digests")


def read_text_bytes(path: Path) -> int:
    """UTF-8 bytes of all documents of a unit's file."""
    return int(_array(path, "text_bytes").sum())


def cut_unit(path: Path, max_bytes: int) -> None:
    """End a unit with the document with which its text reaches `max_bytes`.

    The others count as dropped. Cutting twice is the same as cutting once.
    """
    unit = read_unit(path)
    keep = int(np.searchsorted(np.cumsum(unit.text_bytes), max_bytes)) + 1
    beyond = len(unit.lengths) - keep
    if beyond <= 0:
        return
    kept = replace(
        unit,
        tokens=unit.tokens[: int(unit.lengths[:keep].sum())],
        lengths=unit.lengths[:keep],
        text_bytes=unit.text_bytes[:keep],
        digests=unit.digests[:keep],
        validation=unit.validation[:keep],
        origins=unit.origins[:keep],
        dropped={**unit.dropped, BEYOND_MAX_BYTES: beyond},
    )
    write_unit(path, kept)


def _array(path: Path, name: str) -> np.ndarray:
    with _opened(path) as arrays:
        array: np.ndarray = arrays[name]
        return array


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The arrays of a unit's file; anything that goes wrong in reading them is damage."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            yield arrays
    except Exception as error:  # NumPy and zipfile raise a dozen kinds
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{path}: damaged ({reason or type(error).__name__}). Delete it, and run the same "
            "command again"
        ) from None


@functools.lru_cache(maxsize=1)
def cached_tokenizer(name: TokenizerName) -> Tokenizer:
    """A tokenizer, loaded once in each process."""
    tokenizer = Tokenizer.from_pretrained(name.folder)
    if tokenizer.fingerprint != name.fingerprint:
        raise ValueError(f"{name.folder} does not hold the tokenizer {name.fingerprint}")
    return tokenizer


def _chunk(source: RowSource, number: int, chunk: int, folder: Path, rows: Sequence[Row]) -> Chunk:
    return Chunk(
        path=folder / f"{number:03d}-{chunk:08d}.npz",
        files={row.file: source.files[row.file] for row in rows},
        field=source.required[0],
        rows=rows,
        read=sum(row.read for row in rows),
    )
