"""The lines of a file that is being written, each read once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

LONGEST_LINE = 64 << 10
"""In bytes. A longer line is none of ours, and nothing of it is kept."""
_REMEMBERED = 256
"""Bytes before the place that was reached, which must still be there the next time."""


@dataclass(frozen=True)
class News:
    """What is new in a file.

    Attributes:
        lines: whole lines without their ends, in order; None stands for one that is too long.
        restarted: the file was replaced, cut or rewritten; `lines` begins at its beginning.
        left: bytes that were there and are not read yet.
    """

    lines: list[bytes | None]
    restarted: bool
    left: int


class Tail:
    """Reads on where it was. Memory does not grow with the file.

    A last line without its end is left until it is whole. A file that has become another one, or
    whose text before the reached place is not what it was, is read from its beginning.

    Args:
        opened: gives the file, open for reading.
    """

    def __init__(self, opened: Callable[[], BinaryIO]) -> None:
        self._opened = opened
        self._identity: tuple[int, int] | None = None
        self._forget()

    def read(self, most: int) -> News:
        """What has come since the last call.

        Args:
            most: bytes to read in this call, more than `LONGEST_LINE`.

        Raises:
            OSError, Unreadable: the file cannot be read.
        """
        assert most > LONGEST_LINE
        with self._opened() as file:
            status = os.fstat(file.fileno())
            identity = (status.st_dev, status.st_ino)
            restarted = identity != self._identity or not self._continues(file, status.st_size)
            if restarted:
                self._forget()
                self._identity = identity
            file.seek(self._offset)
            block = file.read(most)
        lines = self._whole(block)
        left = status.st_size - self._offset
        return News(lines, restarted, left if len(block) == most and left > 0 else 0)

    def _forget(self) -> None:
        self._offset = 0
        self._before = b""
        self._skipping = False

    def _continues(self, file: BinaryIO, size: int) -> bool:
        if size < self._offset:
            return False
        file.seek(self._offset - len(self._before))
        return file.read(len(self._before)) == self._before

    def _whole(self, block: bytes) -> list[bytes | None]:
        *texts, rest = block.split(b"\n")
        lines: list[bytes | None] = []
        for text in texts:
            if self._skipping:  # its end; it was counted when it was given up
                self._skipping = False
            else:
                lines.append(text if len(text) <= LONGEST_LINE else None)
        used = len(block) - len(rest)
        if self._skipping or len(rest) > LONGEST_LINE:
            if not self._skipping:
                lines.append(None)
            self._skipping = True
            used = len(block)
        self._offset += used
        self._before = (self._before + block[:used])[-_REMEMBERED:]
        return lines
