"""Paths as callers give them: refused where the system could not even be asked for them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tallyformer.artifacts.system_errors import advice
from tallyformer.errors import UsageError
from tallyformer.quoting import quoted

_NEVER_THERE = (errno.ENAMETOOLONG, errno.ELOOP)


def usable_path(given: str | Path) -> Path:
    """A path of something that is there or not there.

    Args:
        given: what a caller gives; a name on the hub is one too.

    Raises:
        UsageError: it is neither text nor a path, or no file can be called so: it is too long, or
            has a character that no name, or no message of one line, can hold.
    """
    try:
        path = Path(given)
        os.lstat(path)
    except TypeError:
        raise UsageError(f"{quoted(given)} is not a path. Give a text or a Path") from None
    except ValueError:  # NUL, or half of a character
        raise _unusable(given, "has a character that no path can hold. Correct it") from None
    except OSError as error:
        if error.errno in _NEVER_THERE:
            reason = f"{error.strerror}. {advice(error.errno)}"
            raise _unusable(given, f"cannot be used ({reason})") from None
    if any(letter in str(given) for letter in "\n\r"):
        raise _unusable(given, "has a line break in its name. Rename it")
    return path


def _unusable(given: str | Path, reason: str) -> UsageError:
    return UsageError(f"the path {quoted(str(given))} {reason}")
