"""Answers of several servers together, in Redis: whatever server is asked, it knows those of all.

A stream is made and read at one server; beside that it is written to Redis, where another one reads
it. A key has the answer's id in its name:

    owner     whose key it is
    events    a stream of Redis, whose entries have the events' numbers; the last says it is whole
    made      its server still makes it
    read      somebody reads it at another server
    stop      somebody stopped it at another server
    exchange  what can be rated, as JSON

Everything expires. Without Redis a server answers as if it were alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from typing import Any, Self

from tallyformer.errors import UsageError
from tallyformer.server import sse
from tallyformer.server.api_error import ApiError, unavailable
from tallyformer.server.feedback.exchanges import Exchange
from tallyformer.server.rate_limits import STORE_PATIENCE
from tallyformer.server.rejoining import Recording

ALONE = "memory://"
_LOGGER = logging.getLogger("tallyformer.server")
_TICK = 1.0
"""Seconds after which a server says that it still makes or reads an answer."""
_GONE = 8
"""Seconds without that after which it does not any more."""
_EXCHANGE_SECONDS = 24 * 60 * 60
_EVENT, _END = b"event", b"end"
_LOST = "The server that made this answer is gone. Ask again"


class SharedAnswers:
    """What servers know of each other's answers.

    Args:
        url: redis://HOST:PORT.
        patience: seconds that a stream is kept without a reader.
        keep_alive: seconds without an event after which a reader gets a comment.

    Raises:
        UsageError: the URL is none, or the package redis is missing.
    """

    def __init__(self, url: str, *, patience: float, keep_alive: float) -> None:
        try:
            from redis.asyncio import from_url
            from redis.exceptions import RedisError

            self._redis: Any = from_url(url, protocol=2, **STORE_PATIENCE)
        except (ImportError, ValueError):
            raise UsageError(
                "--answer-storage: cannot be used. Give memory://, or redis://HOST:PORT with "
                "pip install 'tallyformer[scale]'"
            ) from None
        self._errors = (RedisError, OSError)
        self._life = math.ceil(patience) + _GONE
        self._keep_alive = keep_alive
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, url: str, *, patience: float, keep_alive: float) -> Self | None:
        """For a setting; None where a server is alone."""
        return None if url == ALONE else cls(url, patience=patience, keep_alive=keep_alive)

    def follow(self, answer_id: str, recording: Recording) -> None:
        """Write a stream's events to Redis as they come, in the background."""
        task = asyncio.create_task(self._follow(answer_id, recording))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stream(self, answer_id: str, owner: str) -> SharedStream | None:
        """Another server's stream, for the key that asked for it.

        Raises:
            ApiError: 503, Redis does not answer.
        """
        with self._answering():
            if await self._redis.get(_key(answer_id, "owner")) != owner.encode():
                return None
        return SharedStream(
            self._redis,
            answer_id,
            life=self._life,
            keep_alive=self._keep_alive,
            answering=self._answering,
        )

    async def remember(self, answer_id: str, exchange: Exchange) -> None:
        """Keep an answer for a day, so that it can be rated; a failure is logged."""
        name, user = _key(answer_id, "exchange"), _of_user(exchange.owner, exchange.user)
        try:
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(name, json.dumps(asdict(exchange)), ex=_EXCHANGE_SECONDS)
            pipe.sadd(user, answer_id)
            pipe.expire(user, _EXCHANGE_SECONDS)
            await pipe.execute()
        except self._errors as error:
            _away(error)

    async def exchange(self, answer_id: str, owner: str) -> Exchange | None:
        """An answer that is kept, for its own key.

        Raises:
            ApiError: 503, Redis does not answer.
        """
        with self._answering():
            kept = await self._redis.get(_key(answer_id, "exchange"))
        found = Exchange(**json.loads(kept)) if kept else None
        return found if found is not None and found.owner == owner else None

    async def forget(
        self, *, owner: str, user: str | None = None, answer_id: str | None = None
    ) -> None:
        """Forget what a key asked: one answer, or all of a user.

        Raises:
            ApiError: 503, Redis does not answer.
        """
        with self._answering():
            if answer_id is not None:
                if await self.exchange(answer_id, owner) is not None:
                    await self._redis.delete(_key(answer_id, "exchange"))
                return
            ids = await self._redis.smembers(_of_user(owner, user))
            names = [_key(found.decode(), "exchange") for found in ids]
            await self._redis.delete(_of_user(owner, user), *names)

    async def check(self) -> None:
        """Say in the log if Redis does not answer."""
        try:
            await self._redis.ping()
        except self._errors as error:
            _away(error)

    async def close(self) -> None:
        """Let go of Redis, once what runs has been told to end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_TICK)
        for task in list(self._tasks):
            task.cancel()
        await self._redis.aclose()

    async def _follow(self, answer_id: str, recording: Recording) -> None:
        sent = 0
        try:
            while not recording.stopped:
                finished, events = recording.finished, recording.since(sent)
                await self._tell(answer_id, recording, events, sent, finished=finished)
                if finished:
                    return
                sent += len(events)
                await recording.news(sent, _TICK)
            names = _names(answer_id)
            await self._redis.delete(names["owner"], names["events"], names["made"])
        except self._errors as error:
            _away(error)

    async def _tell(
        self,
        answer_id: str,
        recording: Recording,
        events: list[bytes],
        first: int,
        *,
        finished: bool,
    ) -> None:
        """Write events, numbered from the first one on, and hear what others want."""
        names = _names(answer_id)
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(names["owner"], recording.owner, ex=self._life)
        for number, event in enumerate(events, first):
            pipe.xadd(names["events"], {_EVENT: event}, id=f"0-{number + 1}")
        if finished:
            pipe.xadd(names["events"], {_END: b""}, id=f"0-{first + len(events) + 1}")
        else:
            pipe.set(names["made"], 1, ex=_GONE)
        pipe.expire(names["events"], self._life)
        pipe.exists(names["read"])
        pipe.exists(names["stop"])
        *_, read, stop = await pipe.execute()
        if read:
            recording.touch()
        if stop and not finished:
            recording.stop()

    @contextlib.contextmanager
    def _answering(self) -> Any:
        try:
            yield
        except self._errors as error:
            _away(error)
            raise unavailable("The servers' common store does not answer", code="store") from None


class SharedStream:
    """Another server's stream, which is read in Redis.

    Args:
        redis: a client.
        answer_id: of the stream.
        life: seconds that it is kept without a reader.
        keep_alive: seconds without an event after which a comment is sent.
        answering: a block in which Redis is used; what it raises becomes a 503.
    """

    def __init__(
        self,
        redis: Any,
        answer_id: str,
        *,
        life: int,
        keep_alive: float,
        answering: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._answering = answering
        self._redis = redis
        self._life = life
        self._keep_alive = keep_alive
        self._names = _names(answer_id)

    async def read(self, first: int) -> AsyncGenerator[bytes, None]:
        """The events from a number on, as they come.

        The last one is an error where their server is gone, or Redis.
        """
        try:
            with self._answering():
                async for event in self._events(first):
                    yield event
        except ApiError as error:
            yield sse.event(sse.json_bytes(error.envelope))

    async def _events(self, first: int) -> AsyncGenerator[bytes, None]:
        clock = asyncio.get_running_loop().time
        last, said = b"0-%d" % first, clock()
        while True:
            # A reader that goes away is not to interrupt the client of Redis, which ends by itself.
            entries = await asyncio.shield(asyncio.create_task(self._entries(last)))
            for last, fields in entries:  # noqa: B007 - the last one is read behind the loop
                if _END in fields:
                    return
                yield fields[_EVENT]
            if entries:
                said = clock()
            elif not await self._redis.exists(self._names["made"]):
                if not await self._whole():
                    raise unavailable(_LOST, code="lost")
                return
            elif clock() - said >= self._keep_alive:
                said = clock()
                yield sse.KEEP_ALIVE

    async def stop(self) -> None:
        """End it at its server, and forget it.

        Raises:
            ApiError: 503, Redis does not answer.
        """
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(self._names["stop"], 1, ex=self._life)
        pipe.delete(self._names["owner"])
        with self._answering():
            await pipe.execute()

    async def _entries(self, last: bytes) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """What follows an entry; nothing after a while. Its server hears that somebody reads."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(self._names["read"], 1, ex=_GONE)
        pipe.expire(self._names["owner"], self._life)
        pipe.expire(self._names["events"], self._life)
        await pipe.execute()
        found = await self._redis.xread({self._names["events"]: last}, block=int(_TICK * 1000))
        return list(found[0][1]) if found else []

    async def _whole(self) -> bool:
        newest = await self._redis.xrevrange(self._names["events"], count=1)
        return bool(newest) and _END in newest[0][1]


def _key(answer_id: str, word: str) -> str:
    return f"tallyformer:{answer_id}:{word}"


def _names(answer_id: str) -> dict[str, str]:
    return {word: _key(answer_id, word) for word in ("owner", "events", "made", "read", "stop")}


def _of_user(owner: str, user: str | None) -> str:
    return "tallyformer:user:" + json.dumps([owner, user])


def _away(error: BaseException) -> None:
    fields = {"error": type(error).__name__}
    _LOGGER.warning("the common store does not answer", extra={"fields": fields})
