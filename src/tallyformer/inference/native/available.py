"""Whether the native library runs here. Nothing is built twice, and nothing is asked twice."""

from __future__ import annotations

import ctypes
from functools import cache

from tallyformer.inference.native.build import BuildError, library_file
from tallyformer.inference.native.c_functions import load_library


def available() -> str | None:
    """Build and load the library if need be; None, or why it cannot be used and what helps."""
    try:
        library()
    except (BuildError, OSError) as error:
        return " ".join(str(error).split())
    return None


@cache
def library() -> ctypes.CDLL:
    """The one library of this process.

    Raises:
        BuildError, OSError: it cannot be built or loaded.
    """
    return load_library(library_file())


def kernels(name: str | None = None) -> str | None:
    """The kernels that run on this processor, or `name` if it can run those; else None."""
    found = library().tally_kernels(None if name is None else name.encode())
    return None if found is None else found.decode("ascii")
