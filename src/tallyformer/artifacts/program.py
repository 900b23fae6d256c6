"""How this program was started, for commands that a message prints."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """The program's name if the PATH leads to it, else its path as typed."""
    typed = Path(sys.argv[0])
    found = shutil.which("tallyformer")
    if typed.name != "tallyformer" or (found and Path(found).samefile(typed)):
        return "tallyformer"
    return str(typed)


def doctor() -> str:
    """The command that says what this machine can do, quoted for a shell."""
    return shlex.join([program(), "doctor"])
