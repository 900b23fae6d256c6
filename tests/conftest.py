"""Settings of every test."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Time limits of single examples say nothing on a machine that others use too.
settings.register_profile("tallyformer", deadline=None)
settings.load_profile("tallyformer")


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a file system of its own, with options of tmpfs such as "size=64k" or "ro".

    Only root may mount one; for others the test is skipped.
    """
    with contextlib.ExitStack() as mounted:

        def make(options: str) -> Path:
            place = tmp_path / "disk"
            place.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
            if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
                pytest.skip("may not mount a file system")
            mounted.callback(subprocess.run, ["umount", place], check=True)
            return place

        yield make
