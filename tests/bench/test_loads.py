"""Loads on answers that take known times. Sleeps never end early, so lower bounds are exact.

Nothing is said of how late they end: the machine may stand still at any time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tallyformer.bench.loads import PAUSE, closed_loop, open_loop
from tallyformer.bench.summary import summarise
from tallyformer.bench.target import Counts, RequestFailed
from tallyformer.errors import CheckpointError

Heard = Callable[[], None]
COUNTS = Counts(prompt=3, answer=2)
FOREVER = 1e6


async def _answer(prompt: Any, heard: Heard, seconds: float = 0.02) -> Counts:
    for _ in range(2):
        await asyncio.sleep(seconds)
        heard()
    return COUNTS


def test_a_closed_loop_has_as_many_requests_under_way_as_streams() -> None:
    now, most = 0, 0

    async def ask(prompt: Any, heard: Heard) -> Counts:
        nonlocal now, most
        now += 1
        most = max(most, now)
        counts = await _answer(prompt, heard)
        now -= 1
        return counts

    measured = asyncio.run(
        closed_loop(ask, itertools.count(), streams=3, seconds=0.3, warmup=0.1, timeout=FOREVER)
    )
    assert most == 3
    assert measured.seconds >= 0.3
    assert all(r.ttft >= 0.02 and r.end_to_end >= 0.04 for r in measured.requests)
    counted = measured.counted
    assert counted and len(counted) < len(measured.requests), "the warm-up is dropped"
    assert min(r.due for r in measured.requests) <= measured.begin - 0.04


def test_every_stream_has_had_an_answer_before_anything_counts() -> None:
    """The first answers are slow, as those of a model that compiles."""

    async def ask(prompt: int, heard: Heard) -> Counts:
        return await _answer(prompt, heard, 0.2 if prompt < 2 else 0.01)

    measured = asyncio.run(
        closed_loop(ask, itertools.count(), streams=2, seconds=0.2, warmup=0.05, timeout=FOREVER)
    )
    assert {r.number for r in measured.counted}.isdisjoint({0, 1})


def test_what_was_due_in_the_span_is_seen_to_its_end() -> None:
    async def ask(prompt: Any, heard: Heard) -> Counts:
        return await _answer(prompt, heard, 0.3)

    measured = asyncio.run(
        closed_loop(ask, itertools.count(), streams=1, seconds=0.1, warmup=0.1, timeout=FOREVER)
    )
    assert len(measured.counted) == 1
    assert measured.counted[0].ended > measured.end


def test_arrivals_do_not_wait_for_answers_and_latency_counts_from_them() -> None:
    """Coordinated omission: one answer at a time, 0.1 s each, and one request every 0.05 s."""
    one = asyncio.Lock()
    sent: list[int] = []
    answered: list[int] = []
    ahead: list[int] = []

    async def ask(prompt: int, heard: Heard) -> Counts:
        sent.append(prompt)
        ahead.append(len(sent) - len(answered))
        async with one:
            await asyncio.sleep(0.1)
            heard()
            answered.append(prompt)
        return Counts(1, 1)

    arrivals = ((0.05 * n, n) for n in itertools.count())
    measured = asyncio.run(open_loop(ask, arrivals, seconds=0.5, warmup=0.0, timeout=FOREVER))
    counted = sorted(measured.counted, key=lambda r: r.due)
    assert len(counted) == 10
    assert max(ahead) >= 5, "later requests were sent before earlier ones were answered"
    for place, request in enumerate(counted):
        assert request.due == pytest.approx(measured.begin + 0.05 * place)
        assert request.sent >= request.due
        # The answer before it and all before that one took 0.1 s each.
        assert request.ttft >= 0.1 * (place + 1) - 0.05 * place - 1e-6


def test_the_load_goes_on_until_the_last_measured_request_has_ended() -> None:
    async def ask(prompt: Any, heard: Heard) -> Counts:
        return await _answer(prompt, heard, 0.2)

    arrivals = ((0.02 * n, n) for n in itertools.count())
    measured = asyncio.run(open_loop(ask, arrivals, seconds=0.1, warmup=0.0, timeout=FOREVER))
    assert len(measured.counted) == 5
    assert all(r.failure is None for r in measured.counted)


def test_failures_have_a_kind_and_a_timeout_is_one() -> None:
    async def ask(prompt: int, heard: Heard) -> Counts:
        if prompt % 4 == 1:
            raise RequestFailed("HTTP 503", "too busy")
        if prompt % 4 == 2:
            heard()
            await asyncio.sleep(60)
        if prompt % 4 == 0:
            heard()
        return COUNTS

    arrivals = ((0.02 * n, n) for n in itertools.count())
    measured = asyncio.run(open_loop(ask, arrivals, seconds=0.4, warmup=0.0, timeout=0.2))
    found = summarise(measured, ttft_ms=1e6, itl_ms=1e6)
    assert found.requests == 20
    assert found.failures == {"HTTP 503": 5, "timeout": 5, "no text in the answer": 5}
    assert found.ttft_ms is not None and found.ttft_ms.count == 5


def test_a_refusal_at_once_does_not_become_a_flood() -> None:
    asked = 0

    async def ask(prompt: int, heard: Heard) -> Counts:
        nonlocal asked
        asked += 1
        raise RequestFailed("HTTP 429")

    measured = asyncio.run(
        closed_loop(ask, itertools.count(), streams=2, seconds=0.5, warmup=0.1, timeout=FOREVER)
    )
    assert asked <= 2 * (1 + measured.seconds / PAUSE + 2)


@pytest.mark.parametrize("kind", ["closed", "open"])
def test_a_defect_of_the_model_ends_the_measurement(kind: str) -> None:
    async def ask(prompt: int, heard: Heard) -> Counts:
        if prompt > 3:
            raise CheckpointError("the model's logits are not finite")
        return await _answer(prompt, heard)

    async def run() -> None:
        shared = {"seconds": 5.0, "warmup": 0.0, "timeout": FOREVER}
        if kind == "closed":
            await closed_loop(ask, itertools.count(), streams=2, **shared)
        else:
            await open_loop(ask, ((0.01 * n, n) for n in itertools.count()), **shared)

    with pytest.raises(BaseExceptionGroup) as raised:
        asyncio.run(run())
    assert raised.group_contains(CheckpointError)
