"""Answers that a client may walk away from: whoever is gone, their work ends at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tallyformer.server import sse

_HEADERS = [
    (name.encode(), value.encode())
    for name, value in {**sse.HEADERS, "content-type": f"{sse.MEDIA_TYPE}; charset=utf-8"}.items()
]
_TURNS = 3
"""Of the loop: an end that has come with the request is read, told and heard of."""


class ClientGone(Exception):  # noqa: N818 - nothing is wrong
    """The client closed its connection; nobody reads an answer."""


@contextlib.asynccontextmanager
async def while_read(receive: Receive, seconds: float | None = None) -> AsyncGenerator[None, None]:
    """End the block as soon as the client goes away, or after so many seconds.

    Raises:
        ClientGone: it went away.
        TimeoutError: the time is over.
    """
    watcher = asyncio.create_task(_until_gone(receive))
    try:
        async with asyncio.timeout(seconds) as limit:

            def end(gone: asyncio.Task[None]) -> None:
                if not gone.cancelled() and not gone.exception() and not limit.expired():
                    limit.reschedule(0)

            watcher.add_done_callback(end)
            try:
                yield
            finally:
                watcher.remove_done_callback(end)
    except TimeoutError:
        if watcher.done():
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()


async def has_gone(request: Request) -> bool:
    """Whether the client has closed its connection, as far as this machine knows."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    return await request.is_disconnected()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, as they are made.

    Args:
        events: bytes of whole events; closed at the end, however it comes.
        headers: beside those of every stream, by lower-case names.
        place: what the stream holds as long as it runs.
        seconds: after which a client that does not read is left.
    """

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
        self.raw_headers = [*_HEADERS, *((k.encode(), v.encode()) for k, v in headers.items())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or as many as the client takes."""
        with self._place, contextlib.suppress(ClientGone, TimeoutError):
            async with (
                while_read(receive, self._seconds),
                contextlib.aclosing(self._events) as events,
            ):
                head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(head)
                send_on = scope["state"].get("send_on", send)
                async for event in events:
                    await send_on({"type": "http.response.body", "body": event, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
