"""Answers that a client may walk away from: whoever is gone, their work ends at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tallyformer.server import sse

T = TypeVar("T")


class ClientGone(Exception):  # noqa: N818 - nothing is wrong
    """The client closed its connection; nobody reads an answer."""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the client goes away.

    Raises:
        ClientGone: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for left in (task, gone):
            left.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, as they are made.

    Args:
        events: bytes of whole events; closed at the end, however it comes.
        headers: beside those of every stream.
        place: what the stream holds as long as it runs.
        seconds: after which a client that does not read is left.
    """

    media_type = sse.MEDIA_TYPE

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        *,
        place: contextlib.ExitStack,
        seconds: float,
    ) -> None:
        self._events = events
        self._place = place
        self._seconds = seconds
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers({**sse.HEADERS, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or as many as the client takes."""
        with self._place, contextlib.suppress(ClientGone, TimeoutError):
            await unless_gone(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        async with asyncio.timeout(self._seconds), contextlib.aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
