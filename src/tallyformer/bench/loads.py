"""Loads: requests that are sent while a cell is measured.

A *closed* loop keeps a number of streams busy: each sends its next request when it has its answer.
An *open* loop sends requests when they are due, whether or not earlier ones are answered, as
people do.

Both continue beyond the measured span until all requests that were due in it have
ended, so that the last ones are under the same load as the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tallyformer.bench.target import Counts, RequestFailed
from tallyformer.bench.timeline import Timeline

clock = time.perf_counter
"""Seconds that never go back."""
PAUSE = 0.25
"""Seconds that a stream of a closed loop rests after a failure, so that a refusal at once does not
become a flood of requests."""

Ask = Callable[[Any, Callable[[], None]], Awaitable[Counts]]
"""Has a prompt answered, and calls back at each part of the answer that has text."""


@dataclass(frozen=True)
class LoadRecord:
    """What was seen under one load.

    Attributes:
        begin, end: the measured span, on the clock of the requests.
        requests: all that ended, those of the warm-up and of the cool-down included.
    """

    begin: float
    end: float
    requests: list[Timeline]

    @property
    def seconds(self) -> float:
        """Length of the measured span."""
        return self.end - self.begin

    @property
    def counted(self) -> list[Timeline]:
        """The requests that were due in the span."""
        return [r for r in self.requests if self.begin <= r.due < self.end]


class _Requests:
    """Sends requests and keeps what was seen of them."""

    def __init__(self, ask: Ask, timeout: float) -> None:
        self._ask = ask
        self._timeout = timeout
        self._numbers = itertools.count()
        self._due: dict[int, float] = {}
        self._changed = asyncio.Event()
        self.ended: list[Timeline] = []

    async def send(self, prompt: Any, due: float) -> Timeline:
        """One request. What is cancelled was not seen to its end and is not kept."""
        number = next(self._numbers)
        self._due[number] = due
        try:
            request = await self._seen(number, prompt, due)
        finally:
            del self._due[number]
            self._changed.set()
        self.ended.append(request)
        return request

    async def until_ended(self, end: float) -> None:
        """Wait for all that were due before `end`."""
        while any(due < end for due in self._due.values()):
            self._changed.clear()
            await self._changed.wait()

    async def _seen(self, number: int, prompt: Any, due: float) -> Timeline:
        request = Timeline(number=number, due=due, sent=clock())
        try:
            async with asyncio.timeout(self._timeout):
                counts = await self._ask(prompt, lambda: request.chunks.append(clock()))
            request.prompt_tokens, request.tokens = counts.prompt, counts.answer
            if not request.chunks:
                request.failure = "no text in the answer"
        except RequestFailed as failed:
            request.failure, request.detail = failed.kind, failed.detail
        except TimeoutError:
            request.failure = "timeout"
        request.ended = clock()
        return request


async def closed_loop(
    ask: Ask,
    prompts: Iterator[Any],
    *,
    streams: int,
    seconds: float,
    warmup: float,
    timeout: float,
) -> LoadRecord:
    """Keep `streams` requests under way.

    The warm-up ends when each stream has had its first answer and `warmup` seconds are over.
    """
    requests = _Requests(ask, timeout)
    warm = asyncio.get_running_loop().create_future()
    began = clock()
    cold = set(range(streams))

    async def stream(number: int) -> None:
        while True:
            prompt = next(prompts)
            request = await requests.send(prompt, clock())
            cold.discard(number)
            if not cold and clock() - began >= warmup and not warm.done():
                warm.set_result(clock())
            if request.failure:
                await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stream(number)) for number in range(streams)]
        begin = await warm
        await asyncio.sleep(seconds)
        end = clock()
        await requests.until_ended(end)
        for task in tasks:
            task.cancel()
    return LoadRecord(begin, end, requests.ended)


async def open_loop(
    ask: Ask,
    arrivals: Iterator[tuple[float, Any]],
    *,
    seconds: float,
    warmup: float,
    timeout: float,
) -> LoadRecord:
    """Send requests when they are due, whatever became of earlier ones.

    Args:
        ask: answers one.
        arrivals: seconds from the start, never falling, and prompts; more than are needed.
        seconds: that are measured.
        warmup: seconds that are dropped before.
        timeout: seconds after which a request has failed.
    """
    requests = _Requests(ask, timeout)
    over = asyncio.Event()
    tasks: set[asyncio.Task[Timeline]] = set()
    start = clock()
    begin, end = start + warmup, start + warmup + seconds
    async with asyncio.TaskGroup() as group:

        def send(due: float, prompt: Any) -> None:
            if due >= end:
                over.set()
            task = group.create_task(requests.send(prompt, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        with _called_at(((start + second, prompt) for second, prompt in arrivals), send):
            await over.wait()
            await requests.until_ended(end)
        for task in tasks:
            task.cancel()
    return LoadRecord(begin, end, requests.ended)


@contextlib.contextmanager
def _called_at(
    arrivals: Iterator[tuple[float, Any]], call: Callable[[float, Any], None]
) -> Iterator[None]:
    """While the block runs, call with each arrival in the event loop when it is due.

    A thread waits for them: the event loop's own timers are late by up to a millisecond. It has
    each prompt before it is due.
    """
    loop = asyncio.get_running_loop()
    stopped = threading.Event()

    def unless_stopped(due: float, prompt: Any) -> None:
        if not stopped.is_set():
            call(due, prompt)

    def work() -> None:
        for due, prompt in arrivals:
            if stopped.wait(max(0.0, due - clock())):
                return
            loop.call_soon_threadsafe(unless_stopped, due, prompt)

    thread = threading.Thread(target=work, name="arrivals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
