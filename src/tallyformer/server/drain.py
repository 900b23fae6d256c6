"""How a server ends: no new request, a while for those that run, then an end for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from tallyformer.server.api_error import unavailable


class Drain:
    """Whether the server ends, and what still runs.

    Attributes:
        began: no new request is taken.
    """

    def __init__(self) -> None:
        self.began = False
        self._expired = False
        self._callbacks: set[Callable[[], None]] = set()
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """A request begins."""
        self._running += 1
        self._idle.clear()

    def leave(self) -> None:
        """A request has ended."""
        self._running -= 1
        if self._running == 0:
            self._idle.set()

    def expire(self) -> None:
        """What still runs has to end at once."""
        self._expired = True
        for callback in list(self._callbacks):
            callback()

    def when_expired(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have something called at `expire`, or now if that has been; the result forgets it."""
        if self._expired:
            callback()
        self._callbacks.add(callback)
        return lambda: self._callbacks.discard(callback)

    async def until_idle(self, seconds: float) -> bool:
        """Wait for all that runs; return whether it has ended in this time."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True


class Draining:
    """Refuses new requests with 503 when the server ends, and counts those that run.

    Args:
        app: what is served.
        drain: shared with whoever ends the server.
        always: paths that are answered all the same.
    """

    def __init__(self, app: ASGIApp, *, drain: Drain, always: Collection[str]) -> None:
        self._app = app
        self._drain = drain
        self._always = always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] in self._always:
            await self._app(scope, receive, send)
            return
        if self._drain.began:
            ending = unavailable("The server is ending. Send this again", code="shutting_down")
            ending.headers["Connection"] = "close"
            await ending.send(scope, receive, send)
            return
        self._drain.enter()
        try:
            await self._app(scope, receive, send)
        finally:
            self._drain.leave()
