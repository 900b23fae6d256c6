"""A Python process that does one thing and never outlives the process that started it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tallyformer.interrupt import left_to_the_parent

END_WITH_PARENT = """
import os, threading
def _wait():
    while os.read(0, 65536):
        pass
    os._exit(1)
threading.Thread(target=_wait, daemon=True).start()
"""
"""Code for the child: its standard input is a pipe that closes when the parent ends, in any way."""


@dataclass(frozen=True)
class Ended:
    """A child that has ended: its exit status (-N: by signal N) and its standard error."""

    status: int
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line of standard error, or the status where there is none."""
        lines = self.stderr.strip().splitlines()
        return lines[-1].strip() if lines else f"exit status {self.status}"


def run_child(
    code: str,
    arguments: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Ended:
    """Run Python code in a child to its end; see `child`."""
    with child(code, arguments, stderr=subprocess.PIPE, env=env, cwd=cwd) as process:
        assert process.stderr is not None
        with process.stderr as pipe:
            said = pipe.read().decode("utf-8", "backslashreplace")
        status = process.wait()
    return Ended(status, said)


@contextlib.contextmanager
def child(
    code: str,
    arguments: Sequence[str],
    *,
    stderr: int | IO[bytes],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs Python code, and that the end of the block ends.

    It also ends when this process does, even by SIGKILL. Signals to a whole group of processes are
    left to this one.

    Args:
        code: finds `arguments` in `sys.argv[1:]`; it has no standard input or output.
        stderr: where its standard error goes, as for `subprocess`.
        pass_fds: open files that it has too, under the same numbers.
    """
    with left_to_the_parent():
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", END_WITH_PARENT + code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
        )
    try:
        yield process
    finally:
        process.kill()
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
