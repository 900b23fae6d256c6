"""Opening what is inside a folder, and nothing that a link or a name would lead out to.

A path is walked one name at a time, each relative to the open folder before it and without
following links, so that nothing changes between the check and the use. A link that stays inside is
resolved first and walked as what it is.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

_LINK = (errno.ELOOP, errno.ENOTDIR)
"""What the system says of a link that may not be followed."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""Without waiting: a pipe of this name has perhaps no writer."""
_NOT_ALLOWED = (errno.EACCES, errno.EPERM)
Advice = Literal["restore", "foreign", "permission", "disk", "link", "version", "recipe"]
"""What helps where a file of a run is not as it should be: each has a sentence on the Runs page.

- restore: its content is damaged.
- foreign: it is something that no run writes, such as a folder in the place of a file.
- permission: this user may not read it.
- disk: the system cannot read it.
- link: it is a link out of the folder of runs, which is not followed.
- version: another version of this package wrote it.
- recipe: it is the recipe, without which the stages are as they were.
"""


class Unreadable(Exception):  # noqa: N818 - it says what the file is
    """Something is there that cannot be read; the message is the reason in a few words.

    Attributes:
        advice: what helps.
    """

    def __init__(self, reason: str, advice: Advice) -> None:
        super().__init__(reason)
        self.advice = advice


@dataclass(frozen=True)
class Names:
    """The names in a folder, and when one was added or removed, in seconds since 1970."""

    names: set[str]
    modified: float


class Inside:
    """A folder, and what is in it.

    Args:
        root: the folder; where it is a link, what that leads to now.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))

    def names(self, *names: str) -> Names:
        """What is in a folder inside.

        Raises:
            FileNotFoundError: it is not there.
            Unreadable: it is not a folder, cannot be opened, or is outside.
        """
        descriptor = self._open(names, _FOLDER)
        try:
            with os.scandir(descriptor) as entries:
                found = {entry.name for entry in entries}
            return Names(found, os.fstat(descriptor).st_mtime)
        except OSError as error:
            raise _refused(error) from None
        finally:
            os.close(descriptor)

    def file(self, *names: str) -> BinaryIO:
        """A regular file inside, open for reading.

        Raises:
            FileNotFoundError: it is not there.
            Unreadable: it is not a regular file, cannot be opened, or is outside.
        """
        descriptor = self._open(names, _FILE)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Unreadable("is not a file", "foreign")
        return os.fdopen(descriptor, "rb")

    def text_of(self, *names: str, most: int) -> bytes:
        """All bytes of a file that has at most `most`.

        Raises:
            FileNotFoundError: it is not there.
            Unreadable: as `file`, or it is longer.
        """
        with self.file(*names) as file:
            try:
                content = file.read(most + 1)
            except OSError as error:
                raise _refused(error) from None
        if len(content) > most:
            raise Unreadable(f"has more than {most >> 20} MiB", "foreign")
        return content

    def _open(self, names: Sequence[str], flags: int) -> int:
        try:
            try:
                return self._walk(names, flags)
            except OSError as error:
                if error.errno not in _LINK:
                    raise
                return self._walk(self._resolved(names), flags)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _refused(error) from None

    def _walk(self, names: Sequence[str], flags: int) -> int:
        descriptor = os.open(self.root, _FOLDER)
        for number, name in enumerate(names, start=1):
            how = flags if number == len(names) else _FOLDER
            try:
                inner = os.open(name, how | os.O_NOFOLLOW, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = inner
        return descriptor

    def _resolved(self, names: Sequence[str]) -> Sequence[str]:
        """The names without links.

        Raises:
            OSError: a link leads nowhere.
            Unreadable: it leads out.
        """
        real = Path(os.path.realpath(self.root.joinpath(*names), strict=True))
        if not real.is_relative_to(self.root):
            raise Unreadable("is a link that leads out of the folder", "link")
        return real.relative_to(self.root).parts


def reason_of(error: OSError) -> str:
    """What the system said, as the end of a sentence; no path is in it."""
    return f"cannot be read ({(error.strerror or 'error').lower()})"


def _refused(error: OSError) -> Unreadable:
    """The system says no."""
    advice: Advice = "disk"
    if error.errno in _NOT_ALLOWED:
        advice = "permission"
    elif error.errno in _LINK:  # in a circle, or through a file
        advice = "foreign"
    return Unreadable(reason_of(error), advice)
