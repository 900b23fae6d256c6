"""A Python process that does one thing and never outlives the process that started it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """Run Python code in a process of its own, which ends when this one ends, even by SIGKILL.

    An exception here, such as that of a signal, ends it too.

    Args:
        code: finds `arguments` in `sys.argv[1:]`; it has no standard input or output.
    """
    with left_to_the_parent():
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", END_WITH_PARENT + code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd,
            encoding="utf-8",
            errors="backslashreplace",
        )
    assert child.stderr is not None
    with child:
        try:
            stderr = child.stderr.read()
            status = child.wait()
        except BaseException:
            child.kill()
            raise
    return Ended(status, stderr)
