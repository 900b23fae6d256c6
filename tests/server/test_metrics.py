"""`/metrics`, read by Prometheus' own parser."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from tallyformer.server.histograms import ModelHistogram
from tallyformer.server.metrics import AnswerTimes, Metrics
from tallyformer.server.settings import ServerSettings

from .conftest import Running, running, until
from .test_load import CHAT, ENDLESS, SHORT, SLOTS, model_of, nothing_runs


def values(text: str) -> dict[tuple[str, str], float]:
    """Value by sample and its labels but `le`."""
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k != "le"}
            found[sample.name, json.dumps(labels, sort_keys=True)] = sample.value
    return found


@pytest.fixture(scope="module")
def numbers(tally_folder: Path) -> tuple[dict[tuple[str, str], float], float, int]:
    """The numbers after two answers, one whole and one streamed; seconds of both; prompt tokens."""
    with running(ServerSettings(models={"tiny": tally_folder})) as server:
        server.wait_until_ready()
        with server.client() as http:
            began = time.monotonic()
            whole = http.post(CHAT, json={**SHORT, "n": 2, "max_tokens": 50}).json()
            http.post(CHAT, json={**SHORT, "stream": True})
            seconds = time.monotonic() - began
            http.post(CHAT, json={**SHORT, "n": 99})
            answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return values(answer.text), seconds, whole["usage"]["prompt_tokens"]


TINY = '{"model": "tiny"}'


def test_requests_are_counted_by_how_they_ended(
    numbers: tuple[dict[tuple[str, str], float], float, int],
) -> None:
    found = numbers[0]
    route = '"route": "/v1/chat/completions"}'
    assert found["tallyformer_requests_total", f'{{"outcome": "ok", {route}'] == 2
    assert found["tallyformer_requests_total", f'{{"outcome": "refused", {route}'] == 1


@pytest.mark.parametrize("rejoin", [True, False])
def test_a_stream_that_ends_with_an_error_has_failed(
    tally_folder: Path, caplog: pytest.LogCaptureFixture, rejoin: bool
) -> None:
    caplog.set_level(logging.INFO, "tallyformer.access")
    late = ServerSettings(models={"tiny": tally_folder}, request_timeout=0.2)
    with running(late) as server, server.client() as http:
        server.wait_until_ready()
        asked = {**ENDLESS, "stream": True, "stream_options": {"rejoin": rejoin}}
        assert '"code":"timeout"' in http.post(CHAT, json=asked).text
        found = values(http.get("/metrics").text)
    labels = f'{{"outcome": "failed", "route": "{CHAT}"}}'
    assert found["tallyformer_requests_total", labels] == 1
    fields = [vars(r)["fields"] for r in caplog.records if r.name == "tallyformer.access"]
    assert [f["failed"] for f in fields if f["route"] == CHAT] == [503]


def test_tokens_and_times_are_those_of_the_answers(
    numbers: tuple[dict[tuple[str, str], float], float, int],
) -> None:
    found, seconds, prompt = numbers
    assert found["tallyformer_prompt_tokens_total", TINY] == 2 * prompt
    assert found["tallyformer_generated_tokens_total", TINY] == 103
    assert found["tallyformer_time_to_first_token_seconds_count", TINY] == 3
    assert found["tallyformer_inter_token_seconds_count", TINY] == 100
    assert found["tallyformer_answer_seconds_count", TINY] == 3
    assert found["tallyformer_queue_seconds_count", TINY] == 3
    assert 0 < found["tallyformer_answer_seconds_sum", TINY] < 2 * seconds
    assert found["tallyformer_slots", TINY] == 64
    assert found["tallyformer_running_answers", TINY] == 0
    assert found["process_resident_memory_bytes", "{}"] > 1e6


def test_no_name_breaks_a_convention(
    numbers: tuple[dict[tuple[str, str], float], float, int],
) -> None:
    for name, _ in numbers[0]:
        assert name.startswith(("tallyformer_", "process_"))
        assert ":" not in name
        assert "_total_" not in name


def test_times_are_shared_by_the_tokens_that_came_together() -> None:
    now = 0.0
    metrics = Metrics(lambda: now)
    times: AnswerTimes = metrics.answer("m")
    for now, tokens in ((2.0, 1), (3.0, 1), (7.0, 2)):  # noqa: B007
        times.tokens(tokens)
    times.finished()
    found = values(metrics.exposition().decode())
    model = '{"model": "m"}'
    assert found["tallyformer_time_to_first_token_seconds_sum", model] == 2.0
    assert found["tallyformer_inter_token_seconds_sum", model] == 5.0
    assert found["tallyformer_inter_token_seconds_count", model] == 3
    assert found["tallyformer_answer_seconds_sum", model] == 7.0
    assert found["tallyformer_answer_tokens_per_second_sum", model] == 3 / 5
    assert (times.first_seconds, times.seconds) == (2.0, 7.0)


def test_two_servers_in_a_process_share_no_numbers(served: Running) -> None:
    first, second = Metrics(time.monotonic), Metrics(time.monotonic)
    first.prompt("m", 5)
    assert b'prompt_tokens_total{model="m"}' not in second.exposition()


STEP = 0.01
"""Seconds of a step besides its own, so that what others do on this machine weighs little."""


@pytest.fixture
def slow_steps(tally_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    with running(ServerSettings(models={"tiny": tally_folder})) as server:
        server.wait_until_ready()
        runner = type(model_of(server).llm.llm.client._engine._runner)
        compute = runner.compute

        def slow(this: Any, works: Any) -> Any:
            time.sleep(STEP)
            return compute(this, works)

        monkeypatch.setattr(runner, "compute", slow)
        yield server


def rates(server: Running) -> float:
    """Tokens a second of all answers until now."""
    found = values(httpx2.get(server.url + "/metrics").text)
    return found.get(("tallyformer_answer_tokens_per_second_sum", TINY), 0.0)


def sums(server: Running) -> dict[str, float]:
    found = values(httpx2.get(server.url + "/metrics").text)
    prefix, suffix = "tallyformer_", "_seconds_sum"
    return {
        name.removeprefix(prefix).removesuffix(suffix): value
        for (name, labels), value in found.items()
        if name.endswith(suffix) and labels == TINY
    }


def chunk_times(server: Running, body: dict[str, Any]) -> list[list[float]]:
    """Of each choice, the seconds after which its chunks of text came."""
    came: dict[int, list[float]] = defaultdict(list)
    began = time.monotonic()
    with server.client() as http, http.stream("POST", CHAT, json=body) as answer:
        for line in answer.iter_lines():
            if '"content":"' in line and '"role"' not in line:
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                came[choice["index"]].append(time.monotonic() - began)
    return list(came.values())


def test_times_are_those_that_a_client_measures(slow_steps: Running) -> None:
    """Sums, because a single time has what else this machine did; 5% of seconds is much of that."""
    server = slow_steps
    body = {**ENDLESS, "n": 4, "stream": True, "max_tokens": 120, "seed": 1}
    holding = {**ENDLESS, "n": 16, "max_tokens": 150}
    holders = [threading.Thread(target=chunk_times, args=(server, holding)) for _ in range(4)]
    for thread in holders:
        thread.start()
    until(lambda: model_of(server).llm.running == SLOTS)
    until(lambda: sums(server).get("inter_token", 0.0) > 0)
    before = sums(server)
    queued = sum(times[0] for times in chunk_times(server, body))
    for thread in holders:
        thread.join()
    between = sums(server)
    first = between["time_to_first_token"] - before["time_to_first_token"]
    assert first == pytest.approx(queued, rel=0.05)
    assert 0.5 * first < between["queue"] - before["queue"] < first
    until(lambda: nothing_runs(server))
    rated = rates(server)
    came = chunk_times(server, body)
    after = sums(server)
    tokens = body["max_tokens"] - 1
    by_client = sum(tokens / (times[-1] - times[0]) for times in came)
    assert rates(server) - rated == pytest.approx(by_client, rel=0.05)
    client = sum(times[-1] - times[0] for times in came)
    assert after["inter_token"] - between["inter_token"] == pytest.approx(client, rel=0.05)
    assert after["queue"] - between["queue"] < 0.5 * client


@given(st.lists(st.tuples(st.floats(0, 400), st.integers(1, 5)), max_size=30))
def test_a_histogram_counts_as_that_of_prometheus_does(
    observed: list[tuple[float, int]],
) -> None:
    borders = (0.5, 1, 2.5, 60, 300)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    made = ModelHistogram("seconds", "Words.", borders)
    ours.register(made)
    official = Histogram("seconds", "Words.", ["model"], buckets=borders, registry=theirs)
    official.labels("m")
    one = made.labels("m")
    for value, times in observed:
        one.observe(value, times)
        for _ in range(times):
            official.labels("m").observe(value)
    found, right = (_samples(registry) for registry in (ours, theirs))
    assert found == pytest.approx(right)


def _samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
