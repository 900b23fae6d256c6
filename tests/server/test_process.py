"""`tallyformer serve` as a process of its own: its start, its log, its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import httpx2
import pytest

from tallyformer.cli.serve import serve
from tallyformer.server.developing import PACKAGE

from ..cli.conftest import command
from .conftest import PATIENCE, until


@contextlib.contextmanager
def process(
    *arguments: object, start_new_session: bool = False, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A serving process on a free port, and its address; it is killed at the end of the block."""
    with subprocess.Popen(
        [command(), "serve", "--port", "0", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    ) as server:
        try:
            url = _address(server)
            # A log that nobody reads would stop the server when its pipe is full.
            threading.Thread(target=_read_on, args=[server], daemon=True).start()
            yield server, url
        finally:
            server.kill()


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stderr
    for line in server.stderr:
        event = json.loads(line)
        if event["event"] == "listening":
            return str(event["url"])
    raise AssertionError("it never listened")


def _read_on(server: subprocess.Popen[str]) -> None:
    assert server.stderr
    with contextlib.suppress(ValueError):  # closed
        for _ in server.stderr:
            pass


def _ready(url: str) -> bool:
    return httpx2.get(url + "/ready", timeout=PATIENCE).status_code == 200


def test_it_lives_before_it_is_ready_and_sigterm_ends_it_with_0(tally_folder: Path) -> None:
    with process("--model", f"tiny={tally_folder}") as (server, url):
        assert httpx2.get(url + "/health", timeout=PATIENCE).status_code == 200
        until(lambda: _ready(url))
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0


def test_no_answer_waits_for_a_collection_that_looks_through_all_that_was_loaded(
    tally_folder: Path,
) -> None:
    program = (
        "import atexit, gc; from tallyformer.cli.main import main;"
        "atexit.register(lambda: print(len(gc.get_objects()), gc.get_freeze_count())); main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--port", "0", "--model", f"m={tally_folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        url = _address(server)
        until(lambda: _ready(url))
        assert httpx2.get(f"{url}/v1/models").status_code == 200
        server.terminate()
        looked_through, frozen = map(int, server.communicate(timeout=PATIENCE)[0].split())
    assert frozen > 10 * looked_through


def test_an_option_that_is_0_is_not_left_out(tally_folder: Path) -> None:
    """Port 0 takes a free one, whoever has another."""
    model = f"tiny={tally_folder}"
    with process("--model", model) as (_, one), process("--model", model) as (_, other):
        assert one != other and not {one, other} & {"http://127.0.0.1:8000", "http://127.0.0.1:0"}


def test_variables_of_the_environment_are_options(tally_folder: Path) -> None:
    variables = {"TALLYFORMER_MODEL": f"one={tally_folder},two={tally_folder}"}
    with process(**variables) as (_, url):
        listed = httpx2.get(url + "/v1/models", timeout=PATIENCE).json()["data"]
        assert [card["id"] for card in listed] == ["one", "two"]


def test_a_variable_that_is_no_setting_is_named_beside_the_one_that_was_meant(
    tally_folder: Path,
) -> None:
    environment = {**os.environ, "TALLYFORMER_REQUEST_PER_MINUTE": "5", "NO_COLOR": "1"}
    with subprocess.Popen(
        [command(), "serve", "--port", "0", "--model", f"m={tally_folder}"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        assert server.stderr
        first = json.loads(server.stderr.readline())
        server.kill()
    assert first["reason"] == (
        "TALLYFORMER_REQUEST_PER_MINUTE has no effect: there is no such setting. "
        "Did you mean TALLYFORMER_REQUESTS_PER_MINUTE?"
    )


def _began(url: str) -> str:
    """When the process that answers began."""
    try:
        lines = httpx2.get(url + "/metrics", timeout=PATIENCE).text.splitlines()
    except httpx2.TransportError:  # the one before has just ended
        return ""
    started = (line for line in lines if line.startswith("process_start_time_seconds"))
    return next(started, "")  # one that ends refuses to answer


def test_a_developers_server_begins_again_when_the_code_is_changed(tally_folder: Path) -> None:
    with process("--model", f"tiny={tally_folder}", "--reload") as (server, url):
        first = _began(url)
        until(lambda: _ready(url))
        (PACKAGE / "__init__.py").touch()
        until(lambda: _began(url) not in (first, ""))
        until(lambda: _ready(url))
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(url + "/health", timeout=PATIENCE)


def test_a_key_that_was_made_opens_the_server_and_is_stored_nowhere(
    tally_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    made = [
        subprocess.run(
            [command(), "key", name, "--file", file], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("alice", "bob")
    ]
    assert not any(key in file.read_text() for key in made)
    assert file.stat().st_mode & 0o077 == 0
    arguments = ("--model", f"tiny={tally_folder}", "--api-key-file", file)
    with process(*arguments) as (_, url), httpx2.Client(base_url=url, timeout=PATIENCE) as http:
        assert http.get("/v1/models").status_code == 401
        for key in made:
            headers = {"authorization": f"Bearer {key}"}
            assert http.get("/v1/models", headers=headers).status_code == 200


def test_a_model_that_cannot_be_loaded_ends_it_with_one_line(tally_folder: Path) -> None:
    bad = tally_folder.parent / "bad"
    bad.mkdir()
    (bad / "config.json").write_text("{}")
    done = _run("--model", f"bad={bad}")
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_what_cannot_be_served_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    for arguments, said in (
        ([], "--model: required"),
        (["--model", f"a={tmp_path}"], "has no config.json"),
        (["--prot", "1"], "No such option"),
    ):
        done = _run(*arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_an_address_in_use_is_one_line(tally_folder: Path) -> None:
    with process("--model", f"tiny={tally_folder}") as (_, url):
        done = _run("--model", f"tiny={tally_folder}", "--port", url.rpartition(":")[2])
        assert done.returncode == 3
        assert "Choose another --host or --port" in done.stderr.splitlines()[-1]


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command(), "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "NO_COLOR": "1"},
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--alias", "x"], "--alias: not an option here. Name a model with --model NAME=FOLDER"),
        (["--ctx-size=512"], "--ctx-size: not an option here. The context is the model's own"),
        (["-m", "x"], "-m: not an option here. Write --model NAME=FOLDER"),
        (["--aliass", "m"], "No such option"),
        (["-ngl", "99"], "-ngl: not an option here. Write --device cuda"),
        (["--api-key", "k"], "--api-key: not an option here. Write keys to a file, hashed"),
        (["--aliass"], "No such option"),
    ],
)
def test_other_servers_flags_are_refused_with_what_says_the_same(
    flags: list[str], said: str
) -> None:
    with pytest.raises(click.UsageError) as caught:
        serve.make_context("serve", ["--model", "a=b", *flags])
    assert said in caught.value.format_message()
