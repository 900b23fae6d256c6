"""A signal at any stage: one line, its exit status, nothing left over, a command that resumes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .printed import ENVIRONMENT, paste, printed_command

SCRIPT = str(Path(sys.executable).with_name("tallyformer"))


@pytest.fixture
def place(finished_odd: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished_odd, tmp_path / finished_odd.name))


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


@contextlib.contextmanager
def _started(place: Path, *arguments: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [SCRIPT, *arguments],
        cwd=place,
        env={**ENVIRONMENT, "TMPDIR": str(place / "tmp")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    ) as process:
        yield process


def _wait_until(what: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    while not what():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)


def _left_over(folder: Path) -> list[Path]:
    """What lies there, but for the one folder in which torch keeps what it has compiled."""
    return [path for path in folder.iterdir() if not path.name.startswith("torchinductor_")]


def _has_begun(place: Path, stage: str) -> Callable[[], bool]:
    return lambda: (place / "the run" / stage / "work.txt").exists()


STAGES = ["tokenizer", "prepare", "pretrain", "sft", "merge", "evaluate", "model"]


def _undo(place: Path, first: str) -> None:
    """Delete a stage's folder and those of all later stages."""
    for folder in STAGES[STAGES.index(first) :]:
        shutil.rmtree(place / "the run" / folder)


@pytest.mark.parametrize(
    ("command", "stage"),
    [
        ("prepare", "tokenizer"),
        ("prepare", "prepare"),
        ("run", "merge"),
        ("evaluate", "evaluate"),
        ("run", "model"),
    ],
)
def test_sigterm_ends_a_stage_with_one_line_whose_command_resumes(
    place: Path, command: str, stage: str
) -> None:
    (place / "tmp").mkdir()
    run = place / "the run"
    _undo(place, stage)
    options = ["--recipe", "tiny.yaml", "--out", "the run", "--set", "evaluate.max_tokens=8"]
    with _started(place, command, *options) as process:
        _wait_until(_has_begun(place, stage), process)
        children = _children(process)
        process.terminate()
        said = process.communicate()[1].splitlines()
    assert process.returncode == 143, said
    assert re.match("error: [a-z]+: stopped by SIGTERM", said[-1])
    assert not [line for line in said if "Traceback" in line]
    assert not psutil.wait_procs(children, timeout=60)[1]
    assert not _left_over(place / "tmp")
    resume = printed_command(said[-1])
    assert resume.startswith(f"{SCRIPT} {command} ")
    done = paste(resume, place)
    assert done.returncode == 0, done.stderr
    last = "model" if command == "run" else command
    assert (run / last / "manifest.json").is_file()
    assert not list(run.rglob("*.partial*")) and not list(run.rglob(".tallyformer-*"))


@pytest.mark.parametrize(("stage", "folder"), [("merge", "merge"), ("export", "model")])
def test_the_check_of_a_killed_stage_dies_with_it_and_its_folder_goes(
    place: Path, stage: str, folder: str, tallyformer: Any
) -> None:
    (place / "tmp").mkdir()
    run = place / "the run"
    _undo(place, folder)
    with _started(place, stage, "--recipe", "tiny.yaml", "--out", "the run") as process:
        _wait_until(lambda: _children(process), process)
        children = _children(process)
        process.kill()
        process.communicate()
    assert not psutil.wait_procs(children, timeout=60)[1]
    refused = tallyformer(stage, "--recipe", "tiny.yaml", "--out", "the run", cwd=place)
    assert refused.returncode == 3 and "holds unfinished work" in refused.stderr
    done = paste(printed_command(refused.stderr), place)
    assert done.returncode == 0, done.stderr
    assert not _left_over(place / "tmp")
    assert not list(run.rglob(".tallyformer-*"))


def test_a_terminal_that_closes_ends_a_run_and_nohup_keeps_it(place: Path) -> None:
    (place / "tmp").mkdir()
    _undo(place, "pretrain")
    length = ["--set", "pretrain.epochs=null", "--set", "pretrain.steps=40"]
    options = ["--recipe", "tiny.yaml", "--out", "the run", *length]
    with _started(place, "pretrain", *options) as process:
        _wait_until(_has_begun(place, "pretrain"), process)
        process.send_signal(signal.SIGHUP)
        said = process.communicate()[1].splitlines()
    assert process.returncode == 129, said
    assert said[-1].startswith("error: pretrain: stopped")

    def like_nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with _started(place, "pretrain", *options, "--resume", preexec_fn=like_nohup) as process:
        for _ in range(100):
            if process.poll() is None:
                process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        said = process.communicate()[1].splitlines()
    assert process.returncode == 0, said


def test_ctrl_c_in_a_process_group_is_one_line(place: Path) -> None:
    """The terminal sends it to the worker processes too."""
    (place / "tmp").mkdir()
    _undo(place, "prepare")
    for number in range(200):
        text = "Interest is the price of money. " * 3000
        (place / "texts" / f"more-{number}.txt").write_text(f"{number} {text}", encoding="utf-8")
    options = ["--recipe", "tiny.yaml", "--out", "the run", "--set", "prepare.workers=2"]
    with _started(place, "prepare", *options, start_new_session=True) as process:
        _wait_until(lambda: len(_children(process)) > 2, process)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate()[1].splitlines()
    assert process.returncode == 130, said
    assert said[-1].startswith("error: prepare: stopped by Ctrl-C")
    assert not [line for line in said if "Traceback" in line], "\n".join(said)
