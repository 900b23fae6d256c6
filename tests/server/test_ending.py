"""After SIGTERM a process ends within its grace and about a second, whoever is in its way.

The time that a test waits is a guard against hanging: far more than a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from .conftest import PATIENCE, until
from .test_load import CHAT, ENDLESS
from .test_process import process

SOON = 9
"""Seconds; 0.1 of grace are given."""
MADE = "tallyformer_generated_tokens_total"
ENOUGH = 10_000
"""Tokens, of some kilobytes each, to fill what the system keeps of a connection."""
Way = Callable[[tuple[str, int]], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def _sent(address: tuple[str, int], sent: bytes, read: int) -> Iterator[None]:
    """A connection of a client that reads so many bytes and then nothing."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        connection.connect(address)
        connection.sendall(sent)
        assert len(connection.recv(read)) == read
        yield


@contextlib.contextmanager
def _reads_no_stream(address: tuple[str, int]) -> Iterator[None]:
    asked = {**ENDLESS, "stream": True, "n": 16, "logprobs": True, "top_logprobs": 20}
    body = json.dumps(asked).encode()
    with _sent(address, _head(len(body)) + body, read=1):
        until(lambda: _generated(address) > ENOUGH)
        yield


def _generated(address: tuple[str, int]) -> float:
    numbers = httpx2.get(f"http://{address[0]}:{address[1]}/metrics", timeout=PATIENCE).text
    lines = (one for one in numbers.splitlines() if one.startswith(MADE))
    return sum(float(one.rpartition(" ")[2]) for one in lines)


def _sends_no_body(address: tuple[str, int]) -> contextlib.AbstractContextManager[None]:
    # The first request's answer tells that the second one, which is sent with it, has come.
    first = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return _sent(address, first + _head(100) + b"{", read=1)


def _reads_no_finished_answers(
    address: tuple[str, int],
) -> contextlib.AbstractContextManager[None]:
    return _sent(address, 60 * b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n", read=1)


def _head(length: int) -> bytes:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n".encode()


def _ends_soon(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGTERM)
    assert server.wait(SOON) == 0


@pytest.mark.parametrize("way", [_reads_no_stream, _sends_no_body, _reads_no_finished_answers])
def test_no_client_delays_the_end(tally_folder: Path, way: Way) -> None:
    options = ("--model", f"tiny={tally_folder}", "--shutdown-grace", "0.1")
    with process(*options) as (server, url):
        until(lambda: httpx2.get(url + "/ready", timeout=PATIENCE).status_code == 200)
        host, _, port = url.removeprefix("http://").partition(":")
        with way((host, int(port))):
            _ends_soon(server)


def test_a_model_that_is_still_read_does_not_delay_the_end(
    tally_folder: Path, tmp_path: Path
) -> None:
    """As from a disk in a network that does not answer."""
    slow = tmp_path / "slow"
    shutil.copytree(tally_folder, slow)
    (slow / "tokenizer.json").unlink()
    os.mkfifo(slow / "tokenizer.json")
    with process("--model", f"slow={slow}", "--shutdown-grace", "0.1") as (server, url):
        assert httpx2.get(url + "/health", timeout=PATIENCE).status_code == 200
        _ends_soon(server)
