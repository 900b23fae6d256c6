"""One process at a time in a folder; the system frees a lock even if its holder is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tallyformer.artifacts.system_errors import cannot_write
from tallyformer.errors import ArtifactError

LOCK = ".lock"
_OF_A_RUN = "recipe.yaml"
_TRIES, _SECONDS_BETWEEN = 20, 0.01
_DEEPEST = 3
"""Folders from a run's to that of a model in it: distill/phase-1/best."""


@contextlib.contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made if it is not there.

    Raises:
        ArtifactError: another process holds it, or the folder cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("w")
    except OSError as error:
        raise cannot_write(path, error) from error
    with lock:
        _lock(lock.fileno(), fcntl.LOCK_EX, path)
        yield


def check_not_in_use(path: Path) -> None:
    """As `alone_in`, without making the folder or holding the lock.

    Raises:
        ArtifactError: another process holds it.
    """
    with contextlib.suppress(FileNotFoundError), (path / LOCK).open() as lock:
        _lock(lock.fileno(), fcntl.LOCK_SH, path)


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """Hold the lock of the run to which a model's folder belongs.

    For a folder of no run it is a lock on the folder around it, which leaves no file behind; it is
    waited for, as whoever holds it may work on another folder there.

    Args:
        folder: absolute; it need not be there, but the folder around it must.

    Raises:
        ArtifactError: another process works in the run, or the run's folder cannot be written.
    """
    around = [*folder.parents][:_DEEPEST]
    run = next((f for f in around if os.path.lexists(f / _OF_A_RUN)), None)
    if run is not None:
        with alone_in(run):
            yield
        return
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_held(lock: int) -> bool:
    """Whether a process works in the folder whose lock file this is, open for reading.

    To find out, the lock is taken and given back; `alone_in` outlasts that.

    Raises:
        OSError: this file system has no locks.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _lock(file: int, kind: int, path: Path) -> None:
    """Take a lock; whoever only looks holds it for so short a time that trying again is enough."""
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        time.sleep(_SECONDS_BETWEEN)
    raise ArtifactError(
        f"{path}: another tallyformer process is working in this folder. Wait for it, "
        "or choose another folder"
    )
