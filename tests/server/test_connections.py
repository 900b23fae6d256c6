"""What clumsy and hostile clients do with a connection itself."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tallyformer.server.settings import ServerSettings

from .conftest import PATIENCE, Running, running, until
from .test_errors import envelope_of, raw
from .test_load import nothing_runs

BODY = b'{"prompt": "a", "max_tokens": 1}'
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x" % len(BODY)
LAST_CHUNK = b"\r\n" + BODY + b"\r\n0\r\n"
ENDLESS = b'{"prompt": "a", "max_tokens": 100000, "ignore_eos": true, "stream": true}'
HASTE = 0.4


@pytest.fixture(scope="module")
def hasty(tally_folder: Path) -> Iterator[Running]:
    """A server that waits for nobody."""
    settings = ServerSettings(models={"tiny": tally_folder}, receive_timeout=HASTE)
    with running(settings) as server:
        server.wait_until_ready()
        yield server


def stream_of(server: Running) -> socket.socket:
    """A connection whose answer is under way, and is not long finished."""
    connection = socket.create_connection(server.address, timeout=PATIENCE)
    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(ENDLESS) + ENDLESS)
    answer = b""
    while b"data: " not in answer:
        answer += connection.recv(65536)
    return connection


@pytest.mark.parametrize(
    ("begun", "part"),
    [
        (LAST_CHUNK, b"X-Trailer: " + b"x" * 1000 + b"\r\n"),
        (LAST_CHUNK + b"X-Trailer: ", b"x" * 1000),
        (b";extension=", b"x" * 1000),
        (b"\r\n" + BODY + b"\r\n", b"0" * 1000),
    ],
    ids=["trailers", "a trailer", "an extension", "a size"],
)
def test_what_a_chunked_body_has_beside_its_data_is_bounded(
    served: Running, begun: bytes, part: bytes
) -> None:
    """The parser keeps trailers in memory until they end."""
    with socket.create_connection(served.address, timeout=PATIENCE) as connection:
        connection.sendall(CHUNKED + begun)
        with pytest.raises(ConnectionError):
            for _ in range(64_000):
                connection.sendall(part)


def test_short_trailers_change_nothing(served: Running) -> None:
    trailer = b"X-Trailer: x\r\n\r\n"
    close = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert raw(served, close + LAST_CHUNK + trailer).startswith(b"HTTP/1.1 200 ")


def test_the_rest_of_a_refused_body_is_not_waited_for_without_end(hasty: Running) -> None:
    """However slowly it comes."""
    with socket.create_connection(hasty.address, timeout=PATIENCE) as connection:
        connection.sendall(HEAD + b"Content-Length: 999999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
        with pytest.raises(ConnectionError):
            for _ in range(PATIENCE * 20):
                connection.sendall(b"x")
                time.sleep(0.05)


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nnone\r\n\r\n"],
)
def test_no_refusal_is_written_into_an_answer(served: Running, sent: bytes) -> None:
    with stream_of(served) as connection:
        connection.sendall(sent)
        rest = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                rest += chunk
    assert b"HTTP/1.1" not in rest
    until(lambda: nothing_runs(served))


def test_a_head_that_is_begun_during_an_answer_has_time_until_its_end(hasty: Running) -> None:
    with stream_of(hasty) as connection:
        connection.sendall(b"GET /health HT")
        rest, ends = b"", time.monotonic() + 4 * HASTE
        while time.monotonic() < ends:
            chunk = connection.recv(65536)
            assert chunk
            rest += chunk
    assert b"HTTP/1.1" not in rest


def test_an_old_client_gets_a_stream_without_chunks(served: Running) -> None:
    body = ENDLESS.replace(b"100000", b"3")
    old = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")
    answer = raw(served, old + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    head, _, events = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert all(line.startswith((b"data: ", b": ")) for line in events.split(b"\n") if line)
    assert events.endswith(b"data: [DONE]\n\n")
    whole = raw(served, old + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert b"content-length: " in whole.partition(b"\r\n\r\n")[0]


def is_busy(server: Running) -> bool:
    return not nothing_runs(server)


LATER = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG = HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 200_000


@pytest.mark.parametrize("later", [LATER, LATER * 20, LONG], ids=["one", "several", "a long one"])
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_sent_more_and_goes_away_frees_its_place(
    served: Running, later: bytes, at_once: bool, stream: bool
) -> None:
    body = ENDLESS if stream else ENDLESS.replace(b"true}", b"false}")
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(served.address, timeout=PATIENCE) as connection:
        if at_once:
            connection.sendall(request + later)
        else:
            connection.sendall(request)
            until(lambda: is_busy(served))
            connection.sendall(later)
        if later is not LONG:
            until(lambda: is_busy(served))
    until(lambda: nothing_runs(served))


def test_a_client_that_leaves_in_the_middle_is_no_failure(
    served: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with stream_of(served) as connection:
        connection.sendall(LATER + b"no request\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
    with socket.create_connection(served.address, timeout=PATIENCE) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
    until(lambda: nothing_runs(served))
    with served.client() as http:
        http.get("/health")
    assert not [r for r in caplog.records if r.levelno > logging.WARNING]


def test_a_client_that_asks_and_leaves_at_once_leaves_nothing_that_runs(served: Running) -> None:
    """Its answer has begun before anybody reads its events."""
    asked = HEAD + b"Content-Length: %d\r\n\r\n" % len(ENDLESS) + ENDLESS
    for _ in range(30):
        with socket.create_connection(served.address, timeout=PATIENCE) as connection:
            connection.sendall(asked)
    until(lambda: nothing_runs(served))


@pytest.fixture(scope="module")
def narrow(tally_folder: Path) -> Iterator[Running]:
    """A server that holds few connections."""
    settings = ServerSettings(models={"tiny": tally_folder}, max_connections=4)
    with running(settings) as server:
        server.wait_until_ready()
        yield server


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /health HTTP/1.1\r\nHost: local",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["silent", "slow", "idle"],
)
def test_whoever_opens_connections_without_end_keeps_nobody_out(
    narrow: Running, sent: bytes
) -> None:
    with contextlib.ExitStack() as opened, contextlib.closing(stream_of(narrow)) as stream:
        for _ in range(40):
            connection = socket.create_connection(narrow.address, timeout=PATIENCE)
            opened.enter_context(connection)
            connection.sendall(sent)
        with narrow.client() as http:
            assert http.get("/health").status_code == 200
        assert b"data: " in stream.recv(65536)


def test_one_connection_more_than_can_be_answered_is_a_503(narrow: Running) -> None:
    with contextlib.ExitStack() as opened:
        streams = [opened.enter_context(contextlib.closing(stream_of(narrow))) for _ in range(4)]
        answer = raw(narrow, b"")
        assert answer.startswith(b"HTTP/1.1 503 ")
        envelope_of(answer)
        assert all(b"data: " in stream.recv(65536) for stream in streams)
    until(lambda: raw(narrow, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")[9:12] == b"200")


def test_a_process_may_open_as_many_files_as_its_connections_need() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = "import resource; from tallyformer.server.listening import connections_at_once as most; "
    code += "print(most({}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    for limit, wanted, expected in (
        ("-Sn 256", 1000, "1000 1128"),
        ("-n 256", 1000, "128 256"),
        ("-n 256", 100, "100 256"),
    ):
        command = f"ulimit {limit} && exec {sys.executable} -c '{code.format(wanted)}'"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert done.stdout.split() == expected.split()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_many_requests_are_not_taken_ahead_of_their_answers(served: Running) -> None:
    with stream_of(served) as connection:
        connection.sendall(LATER * 1000)
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
    until(lambda: nothing_runs(served))


@pytest.mark.parametrize(
    "host",
    [b"[::1", b"[::1]attacker.example", b"localhost:attacker", b"[attacker.example]", b"a[::1]"],
)
def test_a_host_that_is_none_is_not_ours(served: Running, host: bytes) -> None:
    request = b"GET /v1/models HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
    answer = raw(served, request % host)
    assert answer.startswith(b"HTTP/1.1 403 ")
    envelope_of(answer)
    for ours in (b"[::1]", b"[::1]:80", b"LocalHost:80", b"127.0.0.1:80"):
        assert raw(served, request % ours).startswith(b"HTTP/1.1 200 ")
