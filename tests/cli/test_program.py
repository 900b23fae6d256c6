"""A printed command starts the program as the user started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .printed import printed_command

SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize("on_path", [False, True])
def test_a_printed_command_can_be_pasted_with_or_without_an_activated_environment(
    recipe: Path, tmp_path: Path, on_path: bool
) -> None:
    (tmp_path / "bin").symlink_to(SCRIPTS)
    usual = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != str(SCRIPTS))
    path = f"{SCRIPTS}{os.pathsep}{usual}" if on_path else usual
    env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}

    def shell(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True
        )

    typed = "tallyformer" if on_path else "bin/tallyformer"
    done = shell(f"{typed} pretrain --recipe {recipe} --out here")
    assert done.returncode == 3
    command = printed_command(done.stderr)
    assert command.startswith(f"{typed} tokenizer --recipe ")
    assert shell(command).returncode == 0
