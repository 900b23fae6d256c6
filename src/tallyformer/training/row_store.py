"""Rows of one size, found by a key, in a file that several processes read and add to.

A row is added under a lock on the file, after the rows that others have added have been looked at,
so it stands where its writer believes it to be and is there once. What a killed process has half
written lies at the end and is written over by the next one that adds. Whatever is read is compared
with its own checksum and with the key that was asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tallyformer.artifacts.system_errors import cannot_write
from tallyformer.errors import ArtifactError

KEY_BYTES = 16
_CHECK_BYTES = 4


def row_type(fields: Sequence[tuple[Any, ...]]) -> np.dtype[Any]:
    """The type of a row: its checksum, its key, and the given fields."""
    return np.dtype([("check", "<u4"), ("key", "<u8", (2,)), *fields])


class RowStore:
    """The rows of one file.

    Args:
        path: made if it is not there; its folder must be.
        row: the type, from `row_type`.
        fix: what helps when a row is damaged.

    Raises:
        ArtifactError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path, row: np.dtype[Any], fix: str):
        self.path = path
        self.row = row
        self._fix = fix
        self._place: dict[bytes, int] = {}
        self._known = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise cannot_write(path, error) from error
        weakref.finalize(self, os.close, self._file)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other processes from adding rows; waits for one that does.

        Raises:
            ArtifactError: the file system refused something within.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    @property
    def is_empty(self) -> bool:
        """Whether no byte has been written yet."""
        return os.fstat(self._file).st_size == 0

    def __contains__(self, key: bytes) -> bool:
        return key in self._place

    def look(self) -> None:
        """Learn of rows that others have added."""
        with self.locked():
            self._look()

    def add(self, rows: np.ndarray) -> None:
        """Add those rows, with their keys, whose key is not there yet.

        Raises:
            ArtifactError: they cannot be written.
        """
        with self.locked():
            self._look()
            fresh = {}
            for row in rows:
                key = row["key"].tobytes()
                if key not in self._place and key not in fresh:
                    row["check"] = zlib.crc32(row.tobytes()[_CHECK_BYTES:])
                    fresh[key] = row.tobytes()
            self._append(b"".join(fresh.values()))
            self._place |= {key: self._known + n for n, key in enumerate(fresh)}
            self._known += len(fresh)

    def read(self, keys: Sequence[bytes]) -> np.ndarray:
        """The rows of some keys, all of them in the store.

        Raises:
            ArtifactError: a row is damaged.
        """
        rows = np.empty(len(keys), dtype=self.row)
        for number, key in enumerate(keys):
            place = self._place[key]
            raw = os.pread(self._file, self.row.itemsize, place * self.row.itemsize)
            if not self._is_whole(raw, key):
                raise ArtifactError(f"{self.path}: row {place} is damaged. {self._fix}")
            rows[number] = np.frombuffer(raw, dtype=self.row)[0]
        return rows

    def _is_whole(self, raw: bytes, key: bytes) -> bool:
        return (
            len(raw) == self.row.itemsize
            and raw[_CHECK_BYTES : _CHECK_BYTES + KEY_BYTES] == key
            and zlib.crc32(raw[_CHECK_BYTES:]) == int.from_bytes(raw[:_CHECK_BYTES], "little")
        )

    def _look(self) -> None:
        whole = os.fstat(self._file).st_size // self.row.itemsize
        for place in range(self._known, whole):
            begin = place * self.row.itemsize + _CHECK_BYTES
            self._place.setdefault(os.pread(self._file, KEY_BYTES, begin), place)
        self._known = max(self._known, whole)

    def _append(self, data: bytes) -> None:
        end = self._known * self.row.itemsize
        os.ftruncate(self._file, end)
        try:
            left = memoryview(data)
            place = end
            while left:
                done = os.pwrite(self._file, left, place)
                left, place = left[done:], place + done
        except OSError:
            os.ftruncate(self._file, end)
            raise
