"""What the operating system refused, with the advice that fits its reason."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from tallyformer.errors import ArtifactError, TallyFormerError

_FULL = (
    "Free disk space or choose another folder, then resume the stage with --resume; finished "
    "work is kept"
)
_NOT_ALLOWED = "Allow it for this user, or choose another path"
_IN_THE_WAY = "A file, or a link that leads nowhere, is in the way: move it away"
_FAILING = "The disk or the connection to it fails: check it, or choose another folder"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "Raise the largest size of a file (ulimit -f), or choose another file system",
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: "Choose a folder on a file system that can be written",
    errno.ENAMETOOLONG: "Shorten the names in the path",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: "A folder is in the way of the file: move it away",
    errno.ELOOP: "Links in the path lead in a circle: correct them",
    errno.EMFILE: "Raise the number of files that may be open (ulimit -n)",
    errno.ENFILE: "Close programs that hold many files open",
    errno.EIO: _FAILING,
    errno.ENXIO: _FAILING,
    errno.ENODEV: _FAILING,
    errno.ESTALE: _FAILING,
    errno.ETIMEDOUT: _FAILING,
    errno.EBUSY: "Another program uses it: end that, and run the same command again",
    errno.ETXTBSY: "Another program uses it: end that, and run the same command again",
    errno.ENOTEMPTY: "Another process writes there: end that, and run the same command again",
    errno.ENOENT: "It was removed in the meantime: run the same command again",
}
_OTHER = "Choose another path"


def advice(number: int | None) -> str:
    """What helps against an error of the system, as a sentence without its full stop."""
    return _ADVICE.get(number or 0, _OTHER)


def advice_on_reading(error: OSError, fix: str) -> str:
    """What helps where a file cannot be read.

    Args:
        error: the system's refusal.
        fix: what helps where the file is damaged, as one is that has become a folder.
    """
    damaged = error.errno in (errno.EISDIR, errno.ENOTDIR)
    return fix if damaged else _ADVICE.get(error.errno or 0, fix)


def system_error(error: BaseException) -> OSError | None:
    """The system's refusal that an exception tells of, or None.

    safetensors, tokenizers and shutil raise it in exceptions of their own, with the number in the
    text.
    """
    if isinstance(error, TallyFormerError) or not isinstance(error, Exception):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error
    found = re.search(r"(?:\[Errno |os error )(\d+)", str(error))
    if found is None:
        return error if isinstance(error, OSError) else None
    return OSError(int(found[1]), os.strerror(int(found[1])))


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an exception tells that memory is full: Python's, torch's or that of its kernels.

    oneDNN says no more than that a primitive could not be made or run. It has found by then that
    the machine can compute it, so what is missing is memory.
    """
    words = (
        r"out of memory|can't allocate memory|not enough memory|STATUS_ALLOC_FAILED|"
        r"could not (create|execute) a primitive$"
    )
    # torch's class, by its name: torch need not be loaded.
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and bool(re.search(words, str(error))))


def cannot_write(path: Path, error: OSError) -> ArtifactError:
    """The error for a write that the system refused.

    Args:
        path: what was to be written; the refusal may name another place, which is told then.
        error: the refusal.
    """
    reason = error.strerror or " ".join(str(error).split())[:200]
    place = _place(path, error)
    return ArtifactError(f"{place}: cannot be written ({reason}). {advice(error.errno)}")


def _place(path: Path, error: OSError) -> Path:
    """Where the system refused: `path`, or a file that is neither in it nor on the way to it."""
    if not isinstance(error.filename, str):
        return path
    named = Path(error.filename)
    beside = named.is_relative_to(path.parent) or path.is_relative_to(named)
    return path if beside else named
