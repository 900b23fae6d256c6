"""Several servers with one store: whichever is asked, limits, streams and ratings are common."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tallyformer.errors import UsageError
from tallyformer.server.api_error import ApiError
from tallyformer.server.keys import digest_of
from tallyformer.server.rate_limits import RateLimits
from tallyformer.server.settings import ServerSettings
from tallyformer.server.shared_answers import SharedAnswers

from .conftest import PATIENCE, Running, running, until
from .test_errors import check_envelope
from .test_load import CHAT, ENDLESS, SHORT, model_of, nothing_runs
from .test_process import process
from .test_rejoining import BODY, REJOIN, answer_id, blocks, part_of

ALICE, BOB = ({"authorization": f"Bearer {name}"} for name in ("alice", "bob"))
REDIS = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert REDIS
    words = [REDIS, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: _listens(port))
            yield f"redis://127.0.0.1:{port}", process
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url


def settings(folder: Path, place: Path, store: str, **more: Any) -> ServerSettings:
    keys = place / "keys"
    keys.write_text("".join(f"{name} sha256:{digest_of(name)}\n" for name in ("alice", "bob")))
    return ServerSettings(models={"tiny": folder}, api_key_file=keys, answer_storage=store, **more)


@pytest.fixture(scope="module")
def two(
    tally_folder: Path, tmp_path_factory: pytest.TempPathFactory, store: str
) -> Iterator[tuple[Running, Running]]:
    place = tmp_path_factory.mktemp("two")
    told = settings(
        tally_folder,
        place,
        store,
        rate_limit_storage=store,
        requests_per_minute=100,
        feedback=f"sqlite:///{place}/feedback.db",
        rejoin_seconds=3.0,
    )
    with running(told) as one, running(told) as other:
        for server in (one, other):
            server.wait_until_ready()
        yield one, other


@pytest.fixture
def pair(two: tuple[Running, Running]) -> Iterator[tuple[httpx2.Client, httpx2.Client]]:
    with two[0].client(headers=ALICE) as one, two[1].client(headers=ALICE) as other:
        yield one, other


def test_a_limit_is_counted_by_all_together(pair: tuple[httpx2.Client, httpx2.Client]) -> None:
    left = [
        int(http.post(CHAT, json=SHORT).headers["x-ratelimit-remaining-requests"])
        for http in (*pair, *pair)
    ]
    assert left == list(range(left[0], left[0] - 4, -1))


@pytest.mark.parametrize("seen", [1, 3])
def test_a_stream_is_joined_at_another_server(
    pair: tuple[httpx2.Client, httpx2.Client], seen: int
) -> None:
    one, other = pair
    got = blocks(part_of(one, CHAT, seen, method="POST", json={**BODY, "max_tokens": 2000}))
    path = f"/v1/generations/{answer_id(got[0])}"
    last = got[-1].partition("\n")[0].removeprefix("id: ")
    rest = blocks(other.get(path, headers={"last-event-id": last}).text)
    assert rest[-1].endswith("data: [DONE]")
    assert [*got, *rest] == blocks(one.get(path).text) == blocks(other.get(path).text)


def test_it_is_joined_by_the_same_key_alone(pair: tuple[httpx2.Client, httpx2.Client]) -> None:
    one, other = pair
    path = f"/v1/generations/{answer_id(one.post(CHAT, json=BODY).text)}"
    for method in ("GET", "DELETE"):
        check_envelope(other.request(method, path, headers=BOB), 404)
    check_envelope(other.get("/v1/generations/chatcmpl-none"), 404)


def test_it_is_stopped_at_another_server(two: tuple[Running, Running]) -> None:
    with two[0].client(headers=ALICE) as one, two[1].client(headers=ALICE) as other:
        first = part_of(one, CHAT, 3, method="POST", json={**ENDLESS, **REJOIN})
        path = f"/v1/generations/{answer_id(first)}"
        assert other.delete(path).status_code == 204
        until(lambda: nothing_runs(two[0]))
        check_envelope(other.get(path), 404)


def test_whoever_reads_at_another_server_keeps_it_alive(
    tally_folder: Path, tmp_path: Path, store: str
) -> None:
    told = settings(tally_folder, tmp_path, store, rejoin_seconds=0.5)
    with running(told) as maker, running(told) as server:
        maker.wait_until_ready()
        with maker.client(headers=ALICE) as one, server.client(headers=ALICE) as other:
            first = part_of(one, CHAT, 3, method="POST", json={**ENDLESS, **REJOIN})
            ends = time.monotonic() + 4 * 0.5
            with other.stream("GET", f"/v1/generations/{answer_id(first)}") as answer:
                for _ in answer.iter_text():
                    if time.monotonic() > ends:
                        break
            assert model_of(maker).llm.running == 1
            until(lambda: nothing_runs(maker))


def test_an_answer_is_rated_and_forgotten_at_another_server(
    pair: tuple[httpx2.Client, httpx2.Client],
) -> None:
    one, other = pair
    rated = one.post(CHAT, json=SHORT).json()["id"]
    check_envelope(other.post("/v1/feedback", json={"id": rated, "rating": "up"}, headers=BOB), 404)
    assert other.post("/v1/feedback", json={"id": rated, "rating": "up"}).status_code == 200
    assert one.delete(f"/v1/feedback/{rated}").json()["deleted"] == 1
    asked = one.post(CHAT, json={**SHORT, "user": "u"}).json()["id"]
    other.delete("/v1/feedback", params={"user": "u"})
    check_envelope(other.post("/v1/feedback", json={"id": asked, "rating": "up"}), 404)


def test_a_stream_whose_server_is_killed_ends_with_an_error(tally_folder: Path, store: str) -> None:
    words = ("--model", f"tiny={tally_folder}", "--answer-storage", store)
    with process(*words) as (killed, url), process(*words) as (_, there):
        for ready in (url, there):
            until(lambda at=ready: httpx2.get(at + "/ready", timeout=PATIENCE).status_code == 200)
        with httpx2.Client(base_url=url, timeout=PATIENCE) as http:
            part = part_of(http, CHAT, 3, method="POST", json={**ENDLESS, **REJOIN})
        path = f"{there}/v1/generations/{answer_id(part)}"
        part_of(httpx2.Client(timeout=PATIENCE), path, 3)
        killed.kill()
        last = blocks(httpx2.get(path, timeout=PATIENCE).text)[-1]
        assert '"code":"lost"' in last


def test_answers_go_out_while_the_store_is_away(tally_folder: Path, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        url, store = stack.enter_context(redis(tmp_path))
        told = settings(tally_folder, tmp_path, url, rejoin_seconds=3.0)
        server = stack.enter_context(running(told))
        server.wait_until_ready()
        store.kill()
        store.wait()
        with server.client(headers=ALICE) as http:
            text = http.post(CHAT, json=BODY).text
            assert text.endswith("data: [DONE]\n\n")
            assert http.get(f"/v1/generations/{answer_id(text)}").text == text
            check_envelope(http.get("/v1/generations/chatcmpl-none"), 503)


def test_a_stream_whose_store_dies_while_it_is_read_ends_with_an_error(
    tally_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        url, store = stack.enter_context(redis(tmp_path))
        told = settings(tally_folder, tmp_path, url)
        maker, server = (stack.enter_context(running(told)) for _ in range(2))
        maker.wait_until_ready()
        one = stack.enter_context(maker.client(headers=ALICE))
        other = stack.enter_context(server.client(headers=ALICE))
        first = part_of(one, CHAT, 3, method="POST", json={**ENDLESS, **REJOIN})
        path = f"/v1/generations/{answer_id(first)}"
        with other.stream("GET", path) as answer:
            text = ""
            for part in answer.iter_text():
                text += part
                if store.poll() is None:
                    store.kill()
        assert '"code":"store"' in blocks(text)[-1]
        assert one.delete(path).status_code == 204
    assert not [r for r in caplog.records if r.levelno > logging.WARNING]


def test_a_limit_whose_store_does_not_answer_is_a_503(tmp_path: Path) -> None:
    with redis(tmp_path) as (url, store):
        limits = RateLimits(requests=10, tokens=None, at_once=None, storage=url)

        async def counted_and_not() -> None:
            assert (await limits.charge("alice", 1))["x-ratelimit-remaining-requests"] == "9"
            store.kill()
            store.wait()
            with pytest.raises(ApiError) as refused:
                await limits.charge("alice", 1)
            assert (refused.value.status, refused.value.code) == (503, "store")

        asyncio.run(counted_and_not())


def test_a_store_that_is_none_is_one_line() -> None:
    for url in ("nothing://", "redis://127.0.0.1:port"):
        with pytest.raises(UsageError, match="--answer-storage"):
            SharedAnswers.of(url, patience=1.0, keep_alive=1.0)
