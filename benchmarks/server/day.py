"""Mixed traffic of a day, compressed: more by noon than by night, of every kind a server sees."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from client import Client

from tallyformer.bench.target import RequestFailed
from tallyformer.bench.words import prompt_of_words

Body = dict[str, Any]
HOURS = 24
CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
LONGEST = 48
"""Tokens of an answer."""
MOST_AT_ONCE = 200


class Person:
    """Sends requests of all kinds.

    Args:
        client: to whom.
        model: of whom.
        most_words: of a prompt or message.
        seed: of what is asked.
    """

    def __init__(self, client: Client, model: str, most_words: int, seed: int) -> None:
        self._client = client
        self._model = model
        self._most_words = most_words
        self._chance = random.Random(seed)
        self._numbers = itertools.count()
        self.outcomes: Counter[str] = Counter()

    async def ask(self) -> None:
        """One request, whose outcome is counted."""
        kind, do, right = self._chance.choice(KINDS)
        try:
            status = await do(self)
        except RequestFailed as failed:
            self.outcomes[f"{kind}: {failed}"] += 1
            return
        self.outcomes[f"{kind}: {'as it should be' if status in right else status}"] += 1

    async def post(self, path: str, **fields: Any) -> int:
        body = {"model": self._model, **fields}
        return (await self._client.answer(path, body))[0]

    async def get(self, path: str) -> int:
        return (await self._client.answer(path, None))[0]

    def words(self) -> str:
        return prompt_of_words(
            self._chance.randint(1, self._most_words), "day", next(self._numbers)
        )

    def messages(self) -> list[Body]:
        turns = 2 * self._chance.randrange(4) + 1
        roles = itertools.cycle(("user", "assistant"))
        return [{"role": next(roles), "content": self.words()} for _ in range(turns)]

    def length(self) -> int:
        return self._chance.randint(1, LONGEST)

    async def chat(self, **fields: Any) -> int:
        asked = {"messages": self.messages(), "max_tokens": self.length(), **fields}
        return await self.post(CHAT, **asked)

    async def text(self, **fields: Any) -> int:
        asked = {"prompt": self.words(), "max_tokens": self.length(), **fields}
        return await self.post(TEXT, **asked)

    async def hang_up(self) -> int:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._chance.random()):
                await self.chat(stream=self._chance.random() < 0.5, max_tokens=10_000)
        return 0

    async def leave_a_stream_that_can_be_joined(self) -> int:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._chance.random()):
                await self.chat(stream=True, stream_options={"rejoin": True})
        return 0


SAID, FULL = 200, 429
KINDS: tuple[tuple[str, Callable[[Person], Awaitable[int]], set[int]], ...] = (
    ("chat", lambda p: p.chat(stream=True), {SAID, FULL}),
    ("chat with usage", lambda p: p.chat(stream=True, stream_options=USAGE), {SAID, FULL}),
    ("whole chat", lambda p: p.chat(), {SAID, FULL}),
    ("two choices", lambda p: p.chat(n=2, temperature=1.0), {SAID, FULL}),
    ("log-probabilities", lambda p: p.chat(logprobs=True, top_logprobs=3), {SAID, FULL}),
    ("JSON", lambda p: p.chat(response_format={"type": "json_object"}), {SAID, FULL}),
    ("text", lambda p: p.text(stream=True), {SAID, FULL}),
    ("scoring", lambda p: p.text(echo=True, logprobs=1, max_tokens=0), {SAID, FULL}),
    ("stop", lambda p: p.text(stop=["the", "of", "and"]), {SAID, FULL}),
    ("response", lambda p: p.post(RESPONSES, input=p.words()), {SAID, FULL}),
    ("tokens", lambda p: p.post("/tokenize", prompt=p.words()), {SAID}),
    ("models", lambda p: p.get("/v1/models"), {SAID}),
    ("numbers", lambda p: p.get("/metrics"), {SAID}),
    ("unknown model", lambda p: p.chat(model="none"), {404}),
    ("bad field", lambda p: p.chat(temperature="warm"), {400, FULL}),
    ("too long", lambda p: p.text(prompt=" ".join(["the"] * 5000)), {400, FULL}),
    ("hang up", Person.hang_up, {0, FULL, SAID}),
    ("left stream", Person.leave_a_stream_that_can_be_joined, {0, FULL, SAID}),
)
USAGE = {"include_usage": True}


async def day(client: Client, asked: Body) -> Body:
    """All requests of a day: `requests` of them, an hour in `hour_seconds`."""
    seed = asked.get("seed", 0)
    person = Person(client, asked["body"]["model"], asked["most_words"], seed)
    chance = random.Random(seed)
    mean = asked["requests"] / (HOURS * asked["hour_seconds"])
    loop = asyncio.get_running_loop()
    began, due = loop.time(), 0.0
    places, left_out = asyncio.Semaphore(MOST_AT_ONCE), 0
    async with asyncio.TaskGroup() as group:
        while (hour := due / asked["hour_seconds"]) < HOURS:
            due += chance.expovariate(mean * (1 - 0.8 * math.cos(2 * math.pi * hour / HOURS)))
            await asyncio.sleep(began + due - loop.time())
            if places.locked():
                left_out += 1
                continue
            group.create_task(_with(places, person.ask()))
    return {"outcomes": dict(sorted(person.outcomes.items())), "not_sent": left_out}


async def _with(places: asyncio.Semaphore, asking: Awaitable[None]) -> None:
    async with places:
        await asking
