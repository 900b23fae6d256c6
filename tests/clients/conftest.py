"""Clients as their makers ship them, pinned, against a real server with a tiny real model.

`make clients` installs them and runs these tests; without that they are skipped.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ..server.conftest import PATIENCE, keyed, served, tally_folder, tokenizer  # noqa: F401

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / "build" / "clients" / "bin" / "python"
"""With the Python clients, which want other versions of packages than this project."""

needs_node = pytest.mark.skipif(
    not (HERE / "node_modules").is_dir(), reason="needs the clients for Node.js: make clients"
)
needs_python = pytest.mark.skipif(
    not PYTHON.exists(), reason="needs the clients for Python: make clients"
)


def ran(*command: object, **environment: str) -> str:
    """What a program printed, which must succeed."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=HERE,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=10 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout
