"""The application on a real Ray cluster of this machine: `make test-ray`."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from ..inference.conftest import tally_folder, tokenizer  # noqa: F401  (fixtures)
from ..server.test_rejoining import blocks
from ..server.test_shared_answers import REDIS, redis

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")

PATIENCE = 600
"""Seconds; a busy machine takes minutes to start Ray's processes."""
NAME = "tallyformer"
ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "tallyformer.serving.proxy:middlewares",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(PATIENCE),
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": str(PATIENCE),
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "10",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "OMP_NUM_THREADS": "1",
}
ENDLESS: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Profit?"}],
    "max_tokens": 10_000_000,
    "ignore_eos": True,
    "stream": True,
}
BOUNDED = {**ENDLESS, "max_tokens": 300, "seed": 1}


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


class Cluster:
    """A Ray cluster of one node, and the application on it."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.chat = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        self._folder = folder

    def deploy(self, **arguments: Any) -> None:
        from ray import serve

        from tallyformer.serving.arguments import RayArguments
        from tallyformer.serving.ray_app import app

        given = {
            "models": {"tiny": self._folder},
            "allow_anonymous": True,
            "cores": 0.25,
            "answers_per_replica": 2,
            "max_replicas": 2,
            "upscale_seconds": 0,
            "look_back_seconds": 11,
            "shutdown_grace": PATIENCE,
        }
        arguments_of_it = RayArguments.model_validate({**given, **arguments})
        serve.run(app(arguments_of_it), name=NAME, route_prefix="/")

    def replicas(self) -> list[psutil.Process]:
        return [
            process
            for process in psutil.Process().children(recursive=True)
            if ":ServeReplica:" in " ".join(process.cmdline())
        ]

    def running(self) -> int:
        from ray import serve

        states = serve.status().applications[NAME].deployments["TallyFormer"].replica_states
        return int(states.get("RUNNING", 0))

    def answers(self) -> bool:
        body = {**ENDLESS, "stream": False, "max_tokens": 3}
        return httpx2.post(self.chat, json=body, timeout=PATIENCE).status_code == 200


class Asked:
    """One stream that is read in a thread."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self.events: list[str] = []
        self.failure: Exception | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(url, body), daemon=True)
        self._thread.start()

    def leave(self) -> None:
        self._left.set()

    def whole(self) -> list[str]:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        assert self.failure is None
        return self.events

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _read(self, url: str, body: dict[str, Any]) -> None:
        try:
            with httpx2.stream("POST", url, json=body, timeout=PATIENCE) as answer:
                assert answer.status_code == 200
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        self.events.append(line.removeprefix("data: "))
                    if self._left.is_set():
                        return
        except Exception as error:
            self.failure = error


@pytest.fixture(scope="module")
def cluster(tally_folder: Path) -> Iterator[Cluster]:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        from ray import serve

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        one = Cluster(tally_folder)
        try:
            serve.start(proxy_location="HeadOnly", http_options={"port": one.port})
            one.deploy()
            yield one
        finally:
            serve.shutdown()
            ray.shutdown()


def text_of(events: list[str]) -> str:
    assert events[-1] == "[DONE]"
    deltas = [c["delta"] for e in events[:-1] for c in json.loads(e)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_a_stream_through_rays_proxy_is_the_whole_answer(cluster: Cluster) -> None:
    streamed = text_of(Asked(cluster.chat, BOUNDED).whole())
    body = {**BOUNDED, "stream": False}
    whole = httpx2.post(cluster.chat, json=body, timeout=PATIENCE).json()
    assert streamed == whole["choices"][0]["message"]["content"]


def test_errors_are_those_of_the_server(cluster: Cluster) -> None:
    answer = httpx2.post(cluster.chat, json={**BOUNDED, "model": "other"}, timeout=PATIENCE)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_a_client_that_goes_away_frees_its_place(cluster: Cluster) -> None:
    gone = Asked(cluster.chat, ENDLESS)
    until(lambda: len(gone.events) > 2)
    gone.leave()
    gone.whole()
    metrics = cluster.chat.replace("/v1/chat/completions", "/metrics")
    until(lambda: 'running_answers{model="tiny"} 0.0' in httpx2.get(metrics, timeout=PATIENCE).text)


def test_load_adds_a_replica_and_one_that_is_killed_ends_its_streams_with_an_error(
    cluster: Cluster,
) -> None:
    assert cluster.running() == 1
    crowd = [Asked(cluster.chat, ENDLESS) for _ in range(6)]
    until(lambda: all(len(one.events) > 2 for one in crowd))
    until(lambda: cluster.running() == 2)
    crowd += [Asked(cluster.chat, ENDLESS) for _ in range(6)]
    until(lambda: all(len(one.events) > 2 for one in crowd))

    os.kill(busiest(cluster).pid, signal.SIGKILL)
    until(lambda: any(one.ended for one in crowd))
    until(cluster.answers)
    for one in crowd:
        if not one.ended:
            one.leave()
        events = one.whole()
        last = json.loads(events[-1])
        assert "choices" in last or last["error"]["code"] == "replica_lost"
    assert any("error" in json.loads(one.events[-1]) for one in crowd)
    assert cluster.answers()


def busiest(cluster: Cluster) -> psutil.Process:
    """The replica that works most: it answers endless streams."""
    replicas = cluster.replicas()
    before = [sum(replica.cpu_times()[:2]) for replica in replicas]
    time.sleep(2)
    used = [sum(r.cpu_times()[:2]) - b for r, b in zip(replicas, before, strict=True)]
    return replicas[used.index(max(used))]


def test_a_replica_that_is_replaced_finishes_its_answers(cluster: Cluster) -> None:
    until(cluster.answers)
    asked = Asked(cluster.chat, {**BOUNDED, "max_tokens": 20_000})
    until(lambda: len(asked.events) > 2)
    cluster.deploy(yield_seconds=0.05)
    assert cluster.answers()
    assert text_of(asked.whole())


@pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")
def test_whichever_replica_is_asked_an_answer_is_joined_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    with redis(tmp_path) as (url, _):
        cluster.deploy(min_replicas=2, answer_storage=url)
        until(lambda: cluster.running() == 2)
        body = {**BOUNDED, "stream_options": {"rejoin": True}}
        whole = httpx2.post(cluster.chat, json=body, timeout=PATIENCE)
        address = f"/v1/generations/{whole.headers['x-generation-id']}"
        again = cluster.chat.replace("/v1/chat/completions", address)
        # One that is asked at random ten times is not asked alone.
        for _ in range(10):
            joined = httpx2.get(again, timeout=PATIENCE)
            assert joined.status_code == 200
            assert blocks(joined.text) == blocks(whole.text)
