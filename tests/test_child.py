"""A child process ends with its parent, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tallyformer.child import run_child
from tallyformer.interrupt import Stopped, stop_on_signals

SLEEP = """
import os, sys, time
open(sys.argv[1], "w").write(f"{os.getpid()}\\n")
time.sleep(600)
"""
PARENT = f"""
import sys
from tallyformer.child import run_child
run_child({SLEEP!r}, sys.argv[1:])
"""


def _child(said: Path, parent: subprocess.Popen[bytes]) -> psutil.Process:
    while not said.exists() or not said.read_text().endswith("\n"):
        assert parent.poll() is None
        time.sleep(0.01)
    return psutil.Process(int(said.read_text()))


def test_a_killed_parent_takes_its_child_with_it(tmp_path: Path) -> None:
    said = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", PARENT, said]) as parent:
        child = _child(said, parent)
        parent.kill()
    child.wait(timeout=60)
    assert not child.is_running()


def test_a_signal_to_the_group_is_answered_by_the_parent_alone(tmp_path: Path) -> None:
    """The child would print a traceback."""
    said = tmp_path / "pid"
    command = [sys.executable, "-c", PARENT, said]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as parent:
        child = _child(said, parent)
        os.killpg(parent.pid, signal.SIGTERM)
        stderr = parent.communicate()[1]
    assert stderr == b"" and parent.returncode == -signal.SIGTERM
    child.wait(timeout=60)


def test_an_exception_here_ends_the_child(tmp_path: Path) -> None:
    said = tmp_path / "pid"
    signal_this = "import os, signal, sys\nos.kill(os.getppid(), signal.SIGTERM)\n"
    with stop_on_signals(), pytest.raises(Stopped):
        run_child(signal_this + SLEEP, [str(said)])
    if said.exists() and said.read_text():
        assert not psutil.pid_exists(int(said.read_text()))


def test_status_and_last_line_of_a_child_that_fails() -> None:
    done = run_child("raise ValueError('caf\\udce9')")
    assert done.status == 1 and done.last_line == r"ValueError: caf\udce9"
    assert run_child("import os; os._exit(7)").last_line == "exit status 7"


def test_modules_in_the_present_folder_are_not_taken_for_pythons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert run_child("import json").status == 0
