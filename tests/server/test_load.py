"""More work than fits, clients that go away, deadlines, and the server's end."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.inference.engine.engine import Engine
from tallyformer.server.admission import Admission
from tallyformer.server.api_error import ApiError
from tallyformer.server.models import ServedModel
from tallyformer.server.settings import ServerSettings

from .conftest import PATIENCE, Running, running, until
from .test_errors import check_envelope
from .test_process import process

ENDLESS: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Profit?"}],
    "max_tokens": 10_000_000,
    "ignore_eos": True,
}
SHORT = {**ENDLESS, "max_tokens": 3}
CHAT = "/v1/chat/completions"
SLOTS = 64


def model_of(server: Running) -> ServedModel:
    model: ServedModel = server.app.state.models.named("tiny")
    return model


def nothing_runs(server: Running) -> bool:
    model = model_of(server)
    return model.admission.in_work == model.llm.running == model.llm.waiting == 0


@contextlib.contextmanager
def asked(server: Running, body: dict[str, Any], key: str = "x") -> Iterator[socket.socket]:
    """A connection on which a request has been sent; it is closed with the block."""
    sent = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {key}\r\n"
    with socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
        yield connection


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_places(served: Running, stream: bool, n: int) -> None:
    with asked(served, {**ENDLESS, "stream": stream, "n": n}) as connection:
        until(lambda: model_of(served).llm.running == n)
        if stream:
            assert connection.recv(10)
    until(lambda: nothing_runs(served))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_is_in_no_further_step(
    served: Running, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []
    compute = Engine.step

    def slow(engine: Engine) -> Any:
        if engine.running:
            begun.append(time.monotonic())
            time.sleep(0.5)
        return compute(engine)

    monkeypatch.setattr(Engine, "step", slow)
    with asked(served, {**ENDLESS, "stream": stream}):
        until(lambda: len(begun) > 2)
    left = time.monotonic()
    until(lambda: nothing_runs(served))
    # The one that clears up; and one that was about to begin when the client left.
    assert sum(when > left for when in begun) <= 2


def test_clients_that_hang_up_at_random_moments_lose_no_place(served: Running) -> None:
    for number in range(60):
        with asked(served, {**ENDLESS, "stream": number % 2 == 0, "n": 1 + number % 3}) as c:
            if number % 4 == 0:
                c.recv(1 + number)
    until(lambda: nothing_runs(served))
    with served.client() as http:
        assert http.post(CHAT, json=SHORT).status_code == 200


@pytest.fixture
def full(tally_folder: Path) -> Iterator[Running]:
    """A server whose places are all taken, and one answer waits of two that may."""
    settings = ServerSettings(models={"tiny": tally_folder}, max_waiting=2, stream_keep_alive=0.05)
    with running(settings) as server, contextlib.ExitStack() as holders:
        server.wait_until_ready()
        for _ in range(4):
            holders.enter_context(asked(server, {**ENDLESS, "n": 16}))
        until(lambda: model_of(server).llm.running == SLOTS)
        holders.enter_context(asked(server, ENDLESS))
        until(lambda: model_of(server).admission.in_work == SLOTS + 1)
        yield server


def test_past_a_bounded_queue_is_a_429_that_says_when_to_come_again(full: Running) -> None:
    with full.client() as http:
        answer = http.post(CHAT, json={**SHORT, "n": 2})
        detail = check_envelope(answer, 429)
        assert detail["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1
    assert model_of(full).admission.in_work == SLOTS + 1
    client = openai.OpenAI(base_url=full.url + "/v1", api_key="x", max_retries=0)
    message: Any = ENDLESS["messages"]
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="tiny", messages=message, n=2)


def test_a_stream_that_waits_sends_comments_and_no_events(full: Running) -> None:
    with asked(full, {**SHORT, "stream": True}) as connection:
        got = b""
        while got.count(b": waiting\n\n") < 2:
            got += connection.recv(4096)
    assert b'"content":""' in got
    assert b'"finish_reason":"' not in got
    until(lambda: model_of(full).admission.in_work == SLOTS + 1)


@given(
    slots=st.integers(1, 8),
    waiting=st.integers(0, 8),
    wanted=st.lists(st.integers(1, 5), max_size=20),
)
def test_no_more_than_places_and_queue_are_ever_admitted(
    slots: int, waiting: int, wanted: list[int]
) -> None:
    admission = Admission(slots, waiting, clock=lambda: 0.0)
    with contextlib.ExitStack() as held:
        for answers in wanted:
            before = admission.in_work
            try:
                held.enter_context(admission.admitted(answers))
            except ApiError as error:
                assert before + answers > slots + waiting
                assert int(error.headers["Retry-After"]) >= 1
                assert admission.in_work == before
            else:
                assert before == 0 or admission.in_work <= slots + waiting
    assert admission.in_work == 0


def test_the_time_to_come_again_follows_the_measured_service() -> None:
    now = 0.0
    admission = Admission(2, 0, clock=lambda: now)
    for _ in range(100):
        with admission.admitted(1):
            now += 20.0
    with admission.admitted(2):
        assert 8 <= admission.retry_after(1) <= 11
        assert 18 <= admission.retry_after(2) <= 21


def test_a_deadline_ends_an_answer_and_the_client_raises(tally_folder: Path) -> None:
    settings = ServerSettings(models={"tiny": tally_folder}, request_timeout=0.3)
    with running(settings) as server:
        server.wait_until_ready()
        with server.client() as http:
            assert check_envelope(http.post(CHAT, json=ENDLESS), 503)["code"] == "timeout"
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0)
        shared: Any = {k: v for k, v in ENDLESS.items() if k != "ignore_eos"}
        stream = client.chat.completions.create(
            **shared, stream=True, extra_body={"ignore_eos": True}
        )
        with pytest.raises(openai.APIError, match="longer than this server allows"):
            list(stream)
        until(lambda: nothing_runs(server))


def _end_of(url: str, body: dict[str, Any], begun: threading.Event, into: list[str]) -> None:
    with (
        httpx2.Client(base_url=url, timeout=PATIENCE) as http,
        http.stream("POST", CHAT, json=body) as answer,
    ):
        for line in answer.iter_lines():
            begun.set()
            if line:
                into.append(line)


def _ended_while_streaming(
    folder: Path,
    body: dict[str, Any],
    *arguments: object,
    meanwhile: Callable[[str], None] = lambda url: None,
) -> tuple[int, list[str]]:
    """Exit status and the stream's lines; `meanwhile` happens after SIGTERM."""
    begun, lines = threading.Event(), list[str]()
    with process("--model", f"tiny={folder}", *arguments) as (server, url):
        until(lambda: httpx2.get(url + "/ready", timeout=PATIENCE).status_code == 200)
        reader = threading.Thread(target=_end_of, args=(url, body, begun, lines), daemon=True)
        reader.start()
        assert begun.wait(PATIENCE)
        server.send_signal(signal.SIGTERM)
        meanwhile(url)
        status = server.wait(PATIENCE)
        reader.join(PATIENCE)
    return status, lines


def _new_ones_are_refused(url: str) -> None:
    until(lambda: httpx2.get(url + "/ready", timeout=PATIENCE).status_code == 503)
    refused = httpx2.post(url + CHAT, json=SHORT, timeout=PATIENCE)
    check_envelope(refused, 503)
    assert "retry-after" in refused.headers
    assert httpx2.get(url + "/health", timeout=PATIENCE).status_code == 200


def test_sigterm_lets_a_stream_finish_refuses_new_ones_and_exits_with_0(tally_folder: Path) -> None:
    body = {**ENDLESS, "stream": True, "max_tokens": 1500}
    status, lines = _ended_while_streaming(
        tally_folder, body, "--shutdown-grace", "600", meanwhile=_new_ones_are_refused
    )
    assert status == 0
    assert lines[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in lines[-2]


def test_after_the_grace_a_stream_ends_with_an_error_event(tally_folder: Path) -> None:
    body = {**ENDLESS, "stream": True}
    status, lines = _ended_while_streaming(tally_folder, body, "--shutdown-grace", "1")
    assert status == 0
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "shutting_down"
