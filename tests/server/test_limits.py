"""What one key may ask for."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

from tallyformer.errors import UsageError
from tallyformer.server.api_error import ApiError
from tallyformer.server.keys import digest_of
from tallyformer.server.rate_limits import STORE_PATIENCE, RateLimits, SlidingWindow
from tallyformer.server.routes.docs import OPEN_DOCS
from tallyformer.server.routes.health import OPEN_PATHS
from tallyformer.server.routes.page import PAGE_PATHS
from tallyformer.server.settings import ServerSettings

from .conftest import Running, running, until
from .test_errors import check_envelope
from .test_load import CHAT, ENDLESS, SHORT, asked, model_of

READS = {
    *("/v1/models", "/models", "/v1/models/{name:path}", "/v1/generations/{answer_id}"),
    *("/welcome", "/props", "/slots", "/version", "/metrics", "/openapi.json"),
}
"""They say what is there; a stream that is joined again was counted when it was asked for."""


@contextlib.contextmanager
def limited(folder: Path, tmp_path: Path, **limits: Any) -> Iterator[Running]:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name} sha256:{digest_of(name)}\n" for name in ("alice", "bob")))
    with running(ServerSettings(models={"tiny": folder}, api_key_file=keys, **limits)) as server:
        server.wait_until_ready()
        yield server


def ask(server: Running, key: str, **changes: Any) -> httpx2.Response:
    with server.client(headers={"authorization": f"Bearer {key}"}) as http:
        return http.post(CHAT, json={**SHORT, **changes})


def test_requests_a_minute_are_counted_for_each_key_and_said(
    tally_folder: Path, tmp_path: Path
) -> None:
    with limited(tally_folder, tmp_path, requests_per_minute=2) as server:
        answers = [ask(server, "alice"), ask(server, "alice")]
        left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
        assert left == ["1", "0"]
        assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
        assert answers[0].headers["x-ratelimit-reset-requests"].endswith("s")
        refused = ask(server, "alice")
        detail = check_envelope(refused, 429)
        assert (detail["type"], detail["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 120  # two windows, as one slides
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert ask(server, "bob").status_code == 200
        assert ask(server, "bob", n=99).status_code == 400


def test_tokens_a_minute_count_the_prompt_and_the_longest_answer(
    tally_folder: Path, tmp_path: Path
) -> None:
    with limited(tally_folder, tmp_path, tokens_per_minute=100) as server:
        first = ask(server, "alice", stream=True)
        used = 100 - int(first.headers["x-ratelimit-remaining-tokens"])
        prompt = ask(server, "bob").json()["usage"]["prompt_tokens"]
        assert used == prompt + 3
        check_envelope(ask(server, "alice", max_tokens=100), 429)
        assert ask(server, "alice").status_code == 200


def test_requests_at_once_are_bounded_and_their_end_makes_room(
    tally_folder: Path, tmp_path: Path
) -> None:
    with limited(tally_folder, tmp_path, requests_at_once=1) as server:
        with asked(server, ENDLESS, key="alice"):
            until(lambda: model_of(server).llm.running == 1)
            check_envelope(ask(server, "alice"), 429)
            assert ask(server, "bob").status_code == 200
        until(lambda: ask(server, "alice").status_code == 200)
        assert ask(server, "alice").status_code == 200


def test_how_long_to_wait_is_measured_by_how_long_requests_take() -> None:
    now = 0.0
    limits = RateLimits(
        requests=None, tokens=None, at_once=2, storage="memory://", clock=lambda: now
    )
    for _ in range(60):
        with limits.at_once("alice"):
            now += 20
    with (
        limits.at_once("alice"),
        limits.at_once("alice"),
        pytest.raises(ApiError) as refused,
        limits.at_once("alice"),
    ):
        pass
    assert 9 <= int(refused.value.headers["Retry-After"]) <= 10


def _called(server: Running, route: Route, method: str, key: str) -> int:
    """The status of a request as the route's description has it."""
    path = re.sub("{[^}]*}", "chatcmpl-0", route.path)
    taken = getattr(route, "body_field", None)
    body = None
    if taken is not None:
        [body] = taken.field_info.annotation.model_config["json_schema_extra"]["examples"]
        body |= {"model": "tiny", "model_name": "sft"} if "rating" not in body else {}
    with server.client(headers={"authorization": f"Bearer {key}"}) as http:
        return http.request(method, path, json=body, params={"user": "u"}).status_code


def test_every_route_that_works_is_counted(tally_folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    names = [f"key{number}" for number in range(60)]
    keys.write_text("".join(f"{name} sha256:{digest_of(name)}\n" for name in names))
    settings = ServerSettings(
        models={"tiny": tally_folder, "sft": tally_folder},
        api_key_file=keys,
        feedback=f"sqlite:///{tmp_path / 'feedback.db'}",
        requests_per_minute=1,
    )
    with running(settings) as server:
        server.wait_until_ready()
        for route in server.app.router.routes:
            if route.path in OPEN_PATHS | OPEN_DOCS | PAGE_PATHS:
                continue
            for method in set(route.methods) - {"HEAD"}:
                key = names.pop()
                first, second = (_called(server, route, method, key) for _ in range(2))
                assert first != 429, route.path
                assert (second == 429) == (route.path not in READS), (method, route.path, second)


def test_counting_tokens_takes_no_answers_away(tally_folder: Path, tmp_path: Path) -> None:
    with limited(tally_folder, tmp_path, requests_per_minute=1) as server:
        with server.client(headers={"authorization": "Bearer alice"}) as http:
            counted = http.post("/tokenize", json={"prompt": "a"})
            assert counted.headers["x-ratelimit-remaining-requests"] == "0"
            refused = http.post("/detokenize", json={"tokens": [1]})
            assert check_envelope(refused, 429)["code"] == "rate_limit_exceeded"
            assert int(refused.headers["retry-after"]) >= 1
        assert ask(server, "alice").status_code == 200
        assert ask(server, "alice").status_code == 429


counts = st.integers(0, 1000)


@given(counts, counts, st.floats(0, 60), st.integers(1, 1000), st.integers(0, 1000))
def test_there_is_room_after_the_wait_and_none_much_before(
    before: int, now: int, left: float, amount: int, cost: int
) -> None:
    window = SlidingWindow(seconds=60, before=before, now=now, left=left)
    room = max(0, amount - cost)
    wait = window.until_room(room)
    assert window.used(wait) <= room + 1e-6
    assert not wait or window.used(wait - 0.5) > room - 1e-6
    assert window.used(window.until_unused) == 0
    assert wait <= window.until_unused + 1e-6


def test_whoever_waits_as_long_as_was_said_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library's own clock, which is set here, counts what a key has used."""
    now = 1_000_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)

    async def refused_and_back() -> list[int]:
        nonlocal now
        limits = RateLimits(requests=10, tokens=1000, at_once=None, storage="memory://")
        waits = []
        for tokens in (900, 300, 50, 1000, 500):
            try:
                await limits.charge("alice", tokens)
            except ApiError as error:
                waits.append(int(error.headers["Retry-After"]))
                assert int(error.headers["x-ratelimit-reset-tokens"].removesuffix("s")) >= waits[-1]
                now += waits[-1]
                await limits.charge("alice", tokens)
        return waits

    assert max(asyncio.run(refused_and_back())) > 60


@pytest.mark.parametrize("storage", ["nothing://", "redis://127.0.0.1:port", "memory"])
def test_a_storage_that_cannot_be_used_is_one_line(storage: str) -> None:
    with pytest.raises(UsageError, match="--rate-limit-storage"):
        RateLimits(requests=1, tokens=None, at_once=None, storage=storage)


@pytest.mark.parametrize("at", ["nowhere", "deaf"])
def test_a_store_that_does_not_answer_is_said_at_the_start(
    tally_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    pytest.importorskip("redis")
    monkeypatch.setitem(STORE_PATIENCE, "socket_timeout", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        if at == "nowhere":
            deaf.close()
        settings = ServerSettings(
            models={"tiny": tally_folder},
            requests_per_minute=9,
            rate_limit_storage=f"redis://127.0.0.1:{port}",
            answer_storage=f"redis://127.0.0.1:{port}",
        )
        with running(settings) as server, server.client() as http:
            told = {"the store of the limits does not answer", "the common store does not answer"}
            until(lambda: told <= {record.message for record in caplog.records})
            until(lambda: http.get("/v1/models").json()["data"][0]["status"] == "ready")
            assert check_envelope(http.get("/ready"), 503)["code"] == "store"
            assert check_envelope(http.post(CHAT, json=SHORT), 503)["code"] == "store"
            assert http.get("/health").status_code == 200


def test_a_store_that_counts_nothing_is_not_waited_for(tally_folder: Path) -> None:
    pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}"
        settings = ServerSettings(models={"tiny": tally_folder}, rate_limit_storage=url)
        with running(settings) as server, server.client() as http:
            server.wait_until_ready()
            assert http.post(CHAT, json=SHORT).status_code == 200
