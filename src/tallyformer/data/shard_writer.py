"""Writing token shards; the format is described in `shards.py`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from tallyformer.artifacts.atomic import atomic_file


class ShardWriter:
    """Writes one source's documents of one split into shards of about equal size.

    A document is never cut; a shard ends before the document that would make it too large.
    Use as a context manager. Ids go to the disk as they come, so memory does not grow.

    Args:
        folder: where 00000.bin and so on go.
        dtype: type of the ids.
        shard_tokens: the most ids of a shard, unless one document alone has more.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self._folder = folder
        self._dtype = dtype
        self._limit = shard_tokens
        self._open = contextlib.ExitStack()
        self._files: list[IO[bytes]] = []
        self._size = 0
        self.paths: list[Path] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def add(self, tokens: np.ndarray, lengths: np.ndarray, origins: np.ndarray) -> None:
        """Append documents.

        Args:
            tokens: ids of all of them, each document with its end-of-text.
            lengths: ids of each, int64.
            origins: (file number, row) of each, (n, 2).
        """
        ends = np.cumsum(lengths)
        first = 0
        while first < len(lengths):
            begin = int(ends[first] - lengths[first])
            room = self._limit - self._size
            last = int(np.searchsorted(ends, begin + room, side="right"))
            if last <= first and self._size:
                self._close_shard()
                continue
            last = max(last, first + 1)
            starts = self._size + ends[first:last] - lengths[first:last] - begin
            self._write(tokens[begin : int(ends[last - 1])], starts, origins[first:last])
            first = last

    def _write(self, tokens: np.ndarray, starts: np.ndarray, origins: np.ndarray) -> None:
        if not self._files:
            stem = self._folder / f"{len(self.paths) // 3:05d}"
            new = [stem.with_suffix(suffix) for suffix in (".bin", ".idx", ".src")]
            self._files = [self._open.enter_context(atomic_file(path)) for path in new]
            self.paths += new
        arrays = (tokens.astype(self._dtype), starts.astype("<u8"), origins.astype("<u8"))
        for file, array in zip(self._files, arrays, strict=True):
            file.write(np.ascontiguousarray(array).data)
        self._size += len(tokens)

    def _close_shard(self) -> None:
        self._open.close()
        self._files = []
        self._size = 0
