"""A load generator, as a process of its own: one JSON object on standard input, one back.

    {"url": "http://127.0.0.1:8000", "body": {"model": "m"}, "prompt_tokens": 32,
     "output_tokens": 64, "do": "closed", "streams": 16, "seconds": 10}

`closed` keeps streams busy, `open` sends `rate` requests a second by a Poisson process whatever
becomes of them, `hang_up` lets `clients` go away at random moments, `at_once` holds `streams`
streams at the same time and says on standard output when all have begun, `day` sends what a day
brings, see `day.py`.

Answers are streams of exactly `output_tokens`. What comes back has one row a request: seconds at
which it was due (from the first), to its first text, and to its end; and its failure, if any. The
generator's own share of a processor is told too: near 1, it is the generator that was measured.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvloop
from client import Client
from day import day

from tallyformer.bench.arrivals import poisson_times
from tallyformer.bench.loads import LoadRecord, closed_loop, open_loop
from tallyformer.bench.target import Counts, RequestFailed
from tallyformer.bench.words import prompt_of_words

PATH = "/v1/completions"
DIFFERENT = 512
"""Prompts, which are used in turn."""
LATE_SECONDS = 120.0

Asked = dict[str, Any]


class Load:
    """What is asked, and of whom."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.client = Client(asked["url"])
        self.output_tokens = asked["output_tokens"]
        prompts = [
            prompt_of_words(asked["prompt_tokens"], "server", asked.get("seed", 0), number)
            for number in range(DIFFERENT)
        ]
        bodies = [self._body(p) for p in prompts]
        self.bodies: Iterator[Asked] = itertools.cycle(bodies)
        requests = [self.client.request(PATH, body) for body in bodies]
        self.requests: Iterator[bytes] = itertools.cycle(requests)

    def _body(self, prompt: str) -> Asked:
        return {
            **self.asked["body"],
            "prompt": prompt,
            "max_tokens": self.output_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    async def ask(self, request: bytes, heard: Callable[[], None]) -> Counts:
        return await self.client.stream(request, self.output_tokens, heard)


async def closed(load: Load) -> Asked:
    record = await closed_loop(
        load.ask,
        load.requests,
        streams=load.asked["streams"],
        seconds=load.asked["seconds"],
        warmup=load.asked.get("warmup", 1.0),
        timeout=LATE_SECONDS,
    )
    return told(record)


async def open_(load: Load) -> Asked:
    times = poisson_times(load.asked["rate"], "server", load.asked.get("seed", 0))
    record = await open_loop(
        load.ask,
        zip(times, load.requests, strict=False),
        seconds=load.asked["seconds"],
        warmup=load.asked.get("warmup", 1.0),
        timeout=LATE_SECONDS,
    )
    return told(record)


async def hang_up(load: Load) -> Asked:
    """Clients that go away after a random time, some with an answer, most without."""
    chance = random.Random(load.asked.get("seed", 0))
    places = asyncio.Semaphore(load.asked["at_once"])
    statuses: dict[str, int] = {}

    async def client(number: int) -> None:
        body = next(load.bodies) | {"stream": number % 2 == 0, "n": 1 + number % 3}
        if number % 2:
            del body["stream_options"]
        async with places:
            try:
                async with asyncio.timeout(chance.random() * load.asked["longest"]):
                    status, _ = await load.client.answer(PATH, body)
                    outcome = f"HTTP {status}"
            except TimeoutError:
                outcome = "hung up"
            except RequestFailed as failed:
                outcome = failed.kind
        statuses[outcome] = statuses.get(outcome, 0) + 1

    await asyncio.gather(*(client(number) for number in range(load.asked["clients"])))
    return {"outcomes": statuses}


async def at_once(load: Load) -> Asked:
    """Streams that all run at the same time."""
    streams = load.asked["streams"]
    waiting = set(range(streams))

    async def stream(number: int) -> str | None:
        def begun() -> None:
            if number in waiting:
                waiting.remove(number)
                if not waiting:
                    print("begun", flush=True)

        try:
            await load.ask(next(load.requests), begun)
        except RequestFailed as failed:
            return str(failed)
        return None

    failures = await asyncio.gather(*(stream(number) for number in range(streams)))
    return {"streams": streams, "cut": [failure for failure in failures if failure]}


def told(record: LoadRecord) -> Asked:
    tokens = sum(r.tokens_within(record.begin, record.end) for r in record.requests)
    rows = [
        (
            round(r.due - record.begin, 6),
            round(r.chunks[0] - r.due, 6) if r.chunks else None,
            round(r.ended - r.sent, 6),
            r.failure,
        )
        for r in record.counted
    ]
    return {"seconds": record.seconds, "tokens": tokens, "requests": rows}


DOES: dict[str, Callable[[Load], Awaitable[Asked]]] = {
    "closed": closed,
    "open": open_,
    "hang_up": hang_up,
    "at_once": at_once,
    "day": lambda load: day(load.client, load.asked),
}


async def _run(asked: Asked) -> Asked:
    load = Load(asked)
    before, began = time.process_time(), time.perf_counter()
    try:
        found = await DOES[asked["do"]](load)
    finally:
        load.client.close()
    share = (time.process_time() - before) / (time.perf_counter() - began)
    return {**found, "generator_share_of_a_core": round(share, 3)}


if __name__ == "__main__":
    result = uvloop.run(_run(json.loads(sys.stdin.read())))
    print(json.dumps(result), flush=True)
