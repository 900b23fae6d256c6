"""Standard streams that never end the work with a traceback."""

from __future__ import annotations

import _thread
import errno
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any


def open_standard_streams() -> None:
    """Make the three streams safe to use.

    Where a service manager closed one, Python has None; nothing is read or written then. What the
    terminal's encoding lacks is written as an escape. Bytes that it does not know are read as lone
    surrogates, which a command can refuse.
    """
    nothing = Path(os.devnull)
    sys.stdin = sys.stdin or nothing.open(encoding="utf-8")
    sys.stdout = sys.stdout or nothing.open("w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = nothing.open("w", encoding="utf-8")
    else:
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_StandardError(sys.stderr.fileno(), "w", closefd=False)),
            encoding=sys.stderr.encoding,
            errors="backslashreplace",
            line_buffering=True,
        )
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors != "replace":
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


class _StandardError(io.FileIO):
    """Progress and messages: no work is lost because they cannot be written.

    A pipe whose reader is gone is a terminal that was closed, so it counts as a SIGHUP.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if error.errno == errno.EPIPE:
                _thread.interrupt_main(signal.SIGHUP)
            return len(data)
