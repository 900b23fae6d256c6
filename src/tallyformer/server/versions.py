"""Which version of a model a folder holds: to notice that it was changed, and to name it."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCKS, _BLOCK = 64, 4096
Stamp = tuple[tuple[str, int, int, int], ...]


def folder_stamp(folder: Path) -> Stamp:
    """Differs after any of the folder's files was written or replaced, or a link leads elsewhere.

    Raises:
        OSError: the folder cannot be read.
    """
    stamps = []
    for file in _files(folder):
        status = file.stat()
        stamps.append((file.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(stamps)


def content_digest(folder: Path) -> str:
    """Equal for copies of a folder, and another one for other weights.

    Of a large file blocks at even distances are read: training changes all weights.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in _files(folder):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as opened:
            for place in range(0, size, max(_BLOCK, size // _BLOCKS)):
                opened.seek(place)
                digest.update(opened.read(_BLOCK))
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    """What a model is loaded from; a card and the like change no answer."""
    kinds = (".json", ".safetensors", ".model", ".txt")
    return sorted(file for file in folder.iterdir() if file.suffix in kinds and file.is_file())
