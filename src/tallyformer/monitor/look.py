"""Whether a file is still the one that was looked at."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tallyformer.monitor.inside import Inside


@dataclass(frozen=True)
class Version:
    """Changes with the file.

    Attributes:
        modified: seconds since 1970.
    """

    device: int
    number: int
    size: int
    changed: int
    modified: float


def version_of(inside: Inside, *names: str) -> Version:
    """The present one.

    Raises:
        FileNotFoundError, Unreadable: as `Inside.file`.
    """
    with inside.file(*names) as file:
        status = os.fstat(file.fileno())
    return Version(
        status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns, status.st_mtime
    )
