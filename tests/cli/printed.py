"""Commands that a message prints, pasted into a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def printed_command(message: str) -> str:
    """What follows the last ": " before `tallyformer` (or `rm -r`), up to the message's end."""
    found = re.findall(r": ((?:rm -r|\S*tallyformer) .*)", message, flags=re.DOTALL)
    assert found, message
    return str(found[-1]).strip()


def paste(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run it as a user's shell would, with this Python's scripts on the path."""
    scripts = str(Path(sys.executable).parent)
    return subprocess.run(
        ["sh", "-c", command],
        cwd=cwd,
        env={**ENVIRONMENT, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=900,
    )
