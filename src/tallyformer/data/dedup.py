"""Exact deduplication of any number of documents in bounded memory.

The 128-bit content hashes are spread over files on the disk by their value, so that equal ones
meet in one file, and each file is sorted by itself. Of equal documents the first one stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tallyformer.artifacts.atomic import atomic_file
from tallyformer.artifacts.system_errors import cannot_write

PARTITION_DOCUMENTS = 250_000
MOST_PARTITIONS = 512
_PIECE = 1 << 20


def mark_first(
    digests: Iterable[np.ndarray],
    total: int,
    folder: Path,
    partition_documents: int = PARTITION_DOCUMENTS,
) -> Path:
    """Write one byte a document: 1 for the first with its content, 0 for a repetition.

    Args:
        digests: uint64 (n, 2) arrays that together list every document in order.
        total: number of documents.
        folder: for temporary files and the result.
        partition_documents: how many are sorted at a time.

    Raises:
        ArtifactError: the disk is full.
    """
    count = min(MOST_PARTITIONS, 1 + total // partition_documents)
    parts = [folder / f"hashes-{i:03d}" for i in range(count)]
    marks = folder / "first"
    try:
        for part in parts:
            part.unlink(missing_ok=True)
        _spread(digests, parts)
        _write_ones(marks, total)
        if total:
            flags = np.memmap(marks, dtype=np.uint8, mode="r+")
            for part in parts:
                _mark(part, flags)
            flags.flush()
        for part in parts:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return marks


def _spread(digests: Iterable[np.ndarray], parts: list[Path]) -> None:
    first = 0
    for batch in digests:
        records = np.empty((len(batch), 3), dtype=np.uint64)
        records[:, :2] = batch
        records[:, 2] = np.arange(first, first + len(batch), dtype=np.uint64)
        first += len(batch)
        part_of = (batch[:, 0] >> np.uint64(32)) * np.uint64(len(parts)) >> np.uint64(32)
        for part in np.unique(part_of).tolist():
            with parts[part].open("ab") as file:
                file.write(records[part_of == part].tobytes())


def _write_ones(path: Path, total: int) -> None:
    """Written out, not only sized: a full disk shows here, not when the map is changed."""
    with atomic_file(path) as file:
        for begin in range(0, total, _PIECE):
            file.write(b"\x01" * min(_PIECE, total - begin))


def _mark(part: Path, flags: np.ndarray) -> None:
    if not part.exists():
        return
    records = np.fromfile(part, dtype=np.uint64).reshape(-1, 3)
    order = np.lexsort((records[:, 1], records[:, 0]))  # stable, so earlier documents stay first
    records = records[order]
    repeated = (records[1:, :2] == records[:-1, :2]).all(axis=1)
    flags[records[1:][repeated, 2]] = 0
