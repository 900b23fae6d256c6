"""Temporary folders that are gone when their process is: at once, or at the next command's start.

The process that made a folder holds a lock on it, which the system frees even at SIGKILL.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".tallyformer-"


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder that is deleted when the block ends.

    What killed processes have left in the same parent is deleted first.

    Args:
        parent: where it lies; by default the system's folder for temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    sweep(parent)
    with contextlib.ExitStack() as stack:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            # A process that sweeps at this moment may have deleted it or be about to.
            if stack.enter_context(_lock(folder)):
                break
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path | None = None) -> None:
    """Delete the scratch folders whose processes are gone."""
    parent = parent or Path(tempfile.gettempdir())
    for folder in parent.glob(f"{PREFIX}*"):
        with _lock(folder) as is_free:
            if is_free:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Whether the folder is there, is this user's, and nobody holds its lock; if so, hold it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = folder.is_dir() and os.fstat(descriptor).st_uid == os.getuid()
        except OSError:
            held = False
        yield held
    finally:
        os.close(descriptor)
