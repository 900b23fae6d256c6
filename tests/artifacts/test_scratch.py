"""Temporary folders that no killed process leaves for good."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tallyformer.artifacts.scratch import scratch_folder, sweep

HOLD = """
import sys, time
from pathlib import Path
from tallyformer.artifacts.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "junk").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_is_gone_when_its_block_ends(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        assert folder.is_dir() and not list(folder.iterdir())
        (folder / "junk").write_text("x")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_leaves_is_swept_and_what_a_living_one_uses_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / ".tallyformer-file").write_text("not ours")
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        sweep(tmp_path)
        assert (folder / "junk").exists()
        process.kill()
    assert process.returncode == -signal.SIGKILL and folder.exists()
    while folder.exists():  # the system frees the lock when the process is gone
        sweep(tmp_path)
        time.sleep(0.01)
    assert [path.name for path in tmp_path.iterdir()] == [".tallyformer-file"]
