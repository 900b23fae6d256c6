"""Whether the native library runs here. Nothing is built twice, and nothing is asked twice."""

from __future__ import annotations

import ctypes
from functools import cache

from tallyformer.inference.native.build import CACHE_VARIABLE, BuildError, library_file
from tallyformer.inference.native.c_functions import load_library


def available() -> str | None:
    """Build and load the library if need be; None, or why it cannot be used and what helps."""
    try:
        library()
    except BuildError as error:
        return " ".join(str(error).split())
    return None


@cache
def library() -> ctypes.CDLL:
    """The one library of this process.

    Raises:
        BuildError: it cannot be built or loaded.
    """
    file = library_file()
    try:
        return load_library(file)
    except OSError as error:
        fix = f"Name a folder whose files may be run in {CACHE_VARIABLE}, or install again"
        raise BuildError(f"the native library cannot be loaded ({error}). {fix}") from error


def kernels(name: str | None = None) -> str | None:
    """The kernels that run on this processor, or `name` if it can run those; else None."""
    found = library().tally_kernels(None if name is None else name.encode())
    return None if found is None else found.decode("ascii")
