"""Files and folders that are either whole or not there.

A file is written beside its place, flushed to the disk and renamed. A folder is built under a
temporary name and renamed. A process killed in between leaves only a name with `.partial` in
it, which no reader opens and the next writer removes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tallyformer.artifacts.system_errors import cannot_write, system_error

PARTIAL = ".partial"


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears at `path` only when the block ends without an exception.

    Raises:
        ArtifactError: the system refuses to write it, or another place that the block writes.
    """
    partial = path.with_name(path.name + PARTIAL)
    encoding = None if "b" in mode else "utf-8"
    try:
        make_folder(path.parent)
        with partial.open(mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        _remove(partial)
        if refused := system_error(error):
            raise cannot_write(path, refused) from error
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends without an exception.

    An existing `path` is replaced, so callers decide beforehand whether it may be.

    Raises:
        ArtifactError: the system refuses to write it, or another place that the block writes.
    """
    partial = path.with_name(path.name + PARTIAL)
    old = _old(path)
    try:
        for leftover in (partial, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        make_folder(partial)
        yield partial
        _as_readable_as(partial)
        _sync_all(partial)
        replace_folder(path, partial)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if refused := system_error(error):
            raise cannot_write(path, refused) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it, so that a power failure does not take them away.

    Raises:
        OSError: it cannot be made.
    """
    missing = []
    place = path
    while not place.is_dir():
        missing.append(place)
        place = place.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def replace_folder(path: Path, fresh: Path) -> None:
    """Put a folder that is whole in the place of another, or where there was none.

    A kill in between is repaired by `recover_replaced`; `fresh` is still there then.

    Raises:
        OSError: the system refused.
    """
    old = _old(path)
    if path.exists():
        path.replace(old)
    fresh.replace(path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_replaced(folder: Path) -> None:
    """Put back a folder whose replacement by `atomic_folder` was cut off half-way."""
    old = _old(folder)
    if old.is_dir() and not folder.exists():
        old.replace(folder)
        sync_folder(folder.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically.

    A file name that is not UTF-8 holds lone surrogates in Python, which are written as JSON's
    escapes and come back as they were.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_file(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def _old(folder: Path) -> Path:
    """Where `atomic_folder` puts what it replaces."""
    return folder.with_name(folder.name + ".old" + PARTIAL)


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()


def _as_readable_as(folder: Path) -> None:
    """Whoever may list the folder may read its files; safetensors writes its own 0600."""
    readable = folder.stat().st_mode & 0o444
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode | readable)


def _sync_all(folder: Path) -> None:
    """Everything below a folder, and the folders themselves: a file's name is its folder's."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            _sync_file(path)
    sync_folder(folder)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Let the names in a folder outlast a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
