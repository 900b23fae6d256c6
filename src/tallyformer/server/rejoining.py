"""Streams that outlive their connection: what was sent is kept, numbered, for a while.

POST ... "stream_options": {"rejoin": true}     id: 0, data: ...; id: 1, data: ...
(the connection is lost)
GET /v1/generations/{id}, Last-Event-ID: 1      id: 2, data: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Callable

from tallyformer.server import sse

MOST_RECORDINGS = 4096


class Recording:
    """One stream: it is filled once, and read from any place any number of times.

    Args:
        owner: whose key it is.
        patience: seconds without a reader after which an unfinished one is abandoned, and a
            finished one forgotten.
        keep_alive: seconds without an event after which a reader gets a comment.
        forget: called when nobody can read it any more.
        grown: called with the bytes by which it has grown.
        give_up: ends what still runs; its last event is an error.
    """

    def __init__(
        self,
        owner: str,
        *,
        patience: float,
        keep_alive: float,
        forget: Callable[[], None],
        grown: Callable[[int], None],
        give_up: Callable[[], None],
    ) -> None:
        self.owner = owner
        self.size = 0
        self.stopped = False
        self._events: list[bytes] = []
        self._patience = patience
        self._keep_alive = keep_alive
        self._forget = forget
        self._grown = grown
        self.give_up = give_up
        self._news = asyncio.Event()
        self._readers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def finished(self) -> bool:
        """Whether no event will come any more."""
        return self._task is None or self._task.done()

    def since(self, first: int) -> list[bytes]:
        """The events from a number on that are there."""
        return self._events[first:]

    def begin(self, events: AsyncGenerator[bytes, None], place: contextlib.ExitStack) -> None:
        """Fill it in the background; the place is held as long as that takes."""
        self._task = asyncio.create_task(self._fill(events, place))
        self._wait_for_readers()

    def stop(self) -> None:
        """End what still runs, and forget it."""
        self.stopped = True
        if self._task is not None:
            self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._forget()

    def touch(self) -> None:
        """Somebody reads it elsewhere: its patience begins again."""
        self._wait_for_readers()

    async def news(self, first: int, seconds: float) -> None:
        """Wait for the event with this number, the end, or so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while first >= len(self._events) and not self.finished:
                    await self._news.wait()

    async def read(self, first: int) -> AsyncGenerator[bytes, None]:
        """The events from a number on, as they come."""
        self._readers += 1
        try:
            while True:
                while first < len(self._events):
                    yield self._events[first]
                    first += 1
                if self.finished:
                    return
                yield await self._silence(first)
        finally:
            self._readers -= 1
            self._wait_for_readers()

    async def _silence(self, first: int) -> bytes:
        """Wait for news; a comment where none come for a while."""
        await self.news(first, self._keep_alive)
        return b"" if first < len(self._events) or self.finished else sse.KEEP_ALIVE

    async def _fill(self, events: AsyncGenerator[bytes, None], place: contextlib.ExitStack) -> None:
        try:
            with place:
                async with contextlib.aclosing(events):
                    async for written in events:
                        self._add(written)
        finally:
            asyncio.get_running_loop().call_soon(self._tell)

    def _add(self, written: bytes) -> None:
        before = self.size
        for event in written.split(b"\n\n"):
            if event and not event.startswith(b":"):
                numbered = b"id: %d\n%s\n\n" % (len(self._events), event)
                self._events.append(numbered)
                self.size += len(numbered)
        self._tell()
        self._grown(self.size - before)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _wait_for_readers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._readers:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._patience, self._nobody_came)

    def _nobody_came(self) -> None:
        if not self._readers:
            self.stop()


class Recordings:
    """All streams that can be joined again, for a bounded time and in bounded memory.

    Args:
        patience: seconds that one is kept without a reader.
        keep_alive: seconds without an event after which a reader gets a comment.
        most_bytes: of all events that are kept.
    """

    def __init__(self, patience: float, keep_alive: float, *, most_bytes: int) -> None:
        self._patience = patience
        self._most_bytes = most_bytes
        self._keep_alive = keep_alive
        self._recordings: dict[str, Recording] = {}
        self._size = 0

    def record(
        self,
        answer_id: str,
        owner: str,
        events: AsyncGenerator[bytes, None],
        place: contextlib.ExitStack,
        *,
        give_up: Callable[[], None],
    ) -> Recording:
        """Begin to keep a stream; `give_up` ends it with an error."""
        self._make_room()
        recording = Recording(
            owner,
            patience=self._patience,
            keep_alive=self._keep_alive,
            forget=functools.partial(self._forget, answer_id),
            grown=self._grown,
            give_up=give_up,
        )
        self._recordings[answer_id] = recording
        recording.begin(events, place)
        return recording

    def of(self, answer_id: str, owner: str) -> Recording | None:
        """The stream with this id, for the key that asked for it; None where there is none."""
        recording = self._recordings.get(answer_id)
        return recording if recording is not None and recording.owner == owner else None

    def close(self) -> None:
        """End and forget all."""
        for recording in list(self._recordings.values()):
            recording.stop()

    def _forget(self, answer_id: str) -> None:
        forgotten = self._recordings.pop(answer_id, None)
        if forgotten is not None:
            self._size -= forgotten.size

    def _grown(self, size: int) -> None:
        self._size += size
        if self._size > self._most_bytes:
            self._make_room()
        if self._size > self._most_bytes:
            max(self._recordings.values(), key=lambda recording: recording.size).give_up()

    def _make_room(self) -> None:
        """Forget the oldest finished ones until what is kept is within the bounds."""
        for recording in list(self._recordings.values()):
            if self._size <= self._most_bytes and len(self._recordings) < MOST_RECORDINGS:
                return
            if recording.finished:
                recording.stop()
