"""Streams in fewer, larger parts, where each part costs more than its bytes do."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallyformer.server.sse import MEDIA_TYPE


class Coalesced:
    """An application whose event streams are sent on at most once in a while.

    The first part leaves at once, and so does one after a silence: only what follows another too
    closely waits for company, so the time to the first token stays as it was. The bytes are the
    same, and nothing is kept back at the end.

    Args:
        app: what is served.
        seconds: from one part of a stream to the next.
    """

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not self._seconds:
            await self._app(scope, receive, send)
            return
        parts = _Parts(send, self._seconds)
        try:
            await self._app(scope, receive, parts.send)
        finally:
            await parts.close()


class _Parts:
    """The parts of one answer on their way."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self._kept: list[bytes] = []
        self._streams = False
        self._wakes: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._sent = float("-inf")

    async def send(self, message: Message) -> None:
        """What the application sends."""
        if message["type"] == "http.response.start":
            kind = Headers(raw=message["headers"]).get("content-type", "")
            self._streams = kind.startswith(MEDIA_TYPE)
        if not self._streams or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._kept.append(message.get("body", b""))
        if not message.get("more_body", False):
            self._stop_waiting()
            await self._pass_on(more_body=False)
        elif self._wakes is None:
            await self._pass_on_or_wait()

    async def close(self) -> None:
        """The application has returned, or failed: what it sent is not lost."""
        self._stop_waiting()
        if self._kept:
            await self._pass_on(more_body=True)

    async def _pass_on_or_wait(self) -> None:
        rest = self._sent + self._seconds - asyncio.get_running_loop().time()
        if rest <= 0:
            await self._pass_on(more_body=True)
        else:
            self._wakes = asyncio.create_task(self._pass_on_later(rest))

    async def _pass_on_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._wakes = None
        # Nobody awaits this; a receiver that has gone is told to the application by `receive`.
        with contextlib.suppress(OSError, RuntimeError):
            await self._pass_on(more_body=True)

    async def _pass_on(self, *, more_body: bool) -> None:
        async with self._sending:
            body, self._kept = b"".join(self._kept), []
            self._sent = asyncio.get_running_loop().time()
            part: dict[str, Any] = {"type": "http.response.body", "body": body}
            await self._send({**part, "more_body": more_body})

    def _stop_waiting(self) -> None:
        if self._wakes is not None:
            self._wakes.cancel()
            self._wakes = None
