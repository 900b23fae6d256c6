"""`tallyformer runs`, and `run --watch` beside a real training."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil

from .conftest import Run, command

PATIENCE = 600
"""Seconds after which something is taken to hang."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def _get(url: str) -> Any:
    return httpx2.get(url, timeout=PATIENCE).json()


def _until(true: Callable[[], Any]) -> Any:
    limit = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < limit
        time.sleep(0.02)
    return found


def _address(line: str) -> str:
    assert line.startswith("runs:"), line
    return line.split()[1].removesuffix("/runs")


def test_runs_prints_its_address_shows_the_folder_and_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "runs" / "one" / "tokenizer").mkdir(parents=True)
    with subprocess.Popen(
        [command(), "runs", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as shown:
        try:
            assert shown.stdout is not None and shown.stderr is not None
            url = _address(shown.stdout.readline())
            assert [card["id"] for card in _get(f"{url}/v1/runs")["data"]] == ["one"]
            assert httpx2.get(f"{url}/runs", timeout=PATIENCE).text.startswith("<!doctype html>")
            shown.send_signal(signal.SIGTERM)
            assert shown.wait(PATIENCE) == 0
            assert shown.stderr.read() == ""
        finally:
            shown.kill()


def test_what_cannot_be_shown_is_one_line(tallyformer: Run, tmp_path: Path) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "recipe.yaml").write_text("name: one\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, status, said in (
            (["--folder", "nowhere"], 2, "--folder: nowhere is not a folder. Give the one"),
            (["--folder", "runs/one"], 2, f"Give the folder around it: {tmp_path / 'runs'}"),
            (["--host", "0.0.0.0"], 2, "reached by others and there are no keys"),
            (["--port", port], 3, "address already in use. Choose another --host or --port"),
        ):
            done = tallyformer("runs", *arguments, cwd=tmp_path)
            assert done.returncode == status, done.stderr
            assert said in done.stderr and len(done.stderr.splitlines()) == 1


@contextlib.contextmanager
def _watched(recipe: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A training that is long enough to be looked at, and its page's address."""
    long = ("--set", "pretrain.epochs=5000", "--set", "pretrain.log_every=1")
    with subprocess.Popen(
        [command(), "run", "--recipe", recipe, "--watch", "--watch-port", "0", *long],
        cwd=recipe.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as training:
        try:
            assert training.stderr is not None
            yield training, _address(training.stderr.readline())
        finally:
            training.kill()


def _stopped(training: subprocess.Popen[str]) -> str:
    """What it says when it is told to stop."""
    assert training.stderr is not None
    training.send_signal(signal.SIGTERM)
    said = training.stderr.read()
    assert training.wait(PATIENCE) == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    return said


def test_watch_shows_the_training_while_it_trains_and_ends_with_it(recipe: Path) -> None:
    with _watched(recipe) as (training, url):
        curve = f"{url}/v1/runs/tiny/curves/pretrain"

        def steps() -> int:
            parts = _get(curve).get("parts")
            return int(parts[0]["steps"][-1]) if parts and parts[0]["steps"] else 0

        first = _until(steps)
        _until(lambda: steps() > first + 5)
        (card,) = _get(f"{url}/v1/runs")["data"]
        assert (card["state"], card["stage"]) == ("running", "pretrain")
        stages = {stage["stage"]: stage for stage in _get(f"{url}/v1/runs/tiny")["stages"]}
        assert 0 < stages["pretrain"]["progress"] < 1
        assert stages["tokenizer"]["state"] == "finished"
        assert "tallyformer runs --folder" in _stopped(training)
        port = int(url.rpartition(":")[2])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def _page_of(training: subprocess.Popen[str]) -> psutil.Process | None:
    children = psutil.Process(training.pid).children()
    return next((one for one in children if "serve_on" in "".join(one.cmdline())), None)


def test_a_training_outlives_its_page(recipe: Path) -> None:
    with _watched(recipe) as (training, _):
        # Its command line is that of the training until it has begun.
        page = _until(lambda: _page_of(training))
        page.kill()
        metrics = recipe.parent / "runs/tiny/pretrain/metrics.jsonl"
        _until(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 5)
        assert "The Runs page had ended early" in _stopped(training)


def test_a_port_in_use_is_refused_before_the_training(tallyformer: Run, recipe: Path) -> None:
    run = ("run", "--recipe", recipe, "--watch")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = tallyformer(*run, "--watch-port", port, cwd=recipe.parent)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"error: 127.0.0.1:{port}: address already in use. Choose another --watch-port, or leave "
        "it out"
    ]
    assert not (recipe.parent / "runs").exists()


def test_nothing_of_watching_is_accepted_and_ignored(tallyformer: Run, recipe: Path) -> None:
    for arguments, said in (
        (["--watch", "--dry-run"], "a dry run trains nothing"),
        (["--watch-port", "1"], "is of --watch"),
    ):
        done = tallyformer("run", "--recipe", recipe, *arguments)
        assert done.returncode == 2 and said in done.stderr, json.dumps(done.stderr)
