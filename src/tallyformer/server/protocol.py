"""uvicorn's connection, with bounds in number, in bytes and in time on all but requests' bodies.

What is not HTTP gets the envelope too.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tallyformer.server.api_error import ApiError

MOST_UNREAD = 16 << 20
"""Bytes of a body that are taken after its answer."""
MOST_AHEAD = 64
"""Requests of a connection that may come before the answer to an earlier one is whole."""
_REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


def bounded_protocol(
    *, most_connections: int, most_bytes: int, seconds: float
) -> type[asyncio.Protocol]:
    """The class of connections that are bounded, and whose requests' heads are.

    Args:
        most_connections: at once; one more closes that which has waited longest for a whole head,
            or is refused where all have requests that are answered.
        most_bytes: of the request line and all headers; and of what a chunked body has besides
            data: its chunks' sizes and extensions, and its trailers.
        seconds: in which a new connection's first head, and the rest of a begun one, must arrive;
            and after an answer the rest of a body that it did not wait for.
    """

    waiting: dict[BoundedProtocol, None] = {}

    class BoundedProtocol(HttpToolsProtocol):
        """A connection."""

        def connection_made(self, transport: Any) -> None:
            """Begin to wait for the first head."""
            self._head_bytes: int | None = 0
            self._head_timer = self.loop.call_later(seconds, self._too_slow)
            self._rest_timer: asyncio.TimerHandle | None = None
            self._body_goes_on = False
            self._answered: Any = None
            super().connection_made(transport)
            if len(self.connections) > most_connections:
                if not waiting:
                    self._refuse(503, "Too many connections are open. Try again later")
                    return
                next(iter(waiting))._make_room()
            waiting[self] = None

        def connection_lost(self, exc: Exception | None) -> None:
            """The other side has gone."""
            waiting.pop(self, None)
            self._head_timer.cancel()
            self._stop_waiting_for_rest()
            self._tell_answered()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Take what comes; what is too long is refused before it is parsed."""
            if self._head_bytes is not None:
                end = data.find(b"\r\n\r\n")
                self._head_bytes += len(data) if end < 0 else end
                if self._head_bytes > most_bytes:
                    self._refuse(431, f"The request's head is longer than {most_bytes} bytes")
                    return
            elif self._body_goes_on:
                # The parser keeps trailers, and a body's bound does not count them.
                if self._beside_data > most_bytes:
                    self._refuse(431, f"The body has more than {most_bytes} bytes beside its data")
                    return
                self._beside_data += len(data)
            super().data_received(data)

        def on_message_begin(self) -> None:
            """A request's first byte has come."""
            super().on_message_begin()
            self._unread = 0
            if self._head_bytes is None:
                self._head_bytes = 0
                self._head_timer = self.loop.call_later(seconds, self._too_slow)

        def on_headers_complete(self) -> None:
            """A head is whole; a body may follow, or the next request."""
            waiting.pop(self, None)
            self._head_bytes = None
            self._head_timer.cancel()
            self._body_goes_on, self._beside_data = True, 0
            super().on_headers_complete()
            if len(self.pipeline) > MOST_AHEAD:
                self._leave()
            elif self.pipeline:
                # Whoever does not read does not notice that the client has gone.
                self.flow.resume_reading()

        def on_body(self, body: bytes) -> None:
            """Part of a body. Of one that nobody reads, a bounded part is waited for.

            Closing at once could take the answer away from a client that still sends.
            """
            self._beside_data = 0
            if self.cycle.response_complete:
                self._unread += len(body)
                if self._unread > MOST_UNREAD:
                    self.transport.close()
                    return
            super().on_body(body)
            if self.pipeline and len(self.cycle.body) > HIGH_WATER_LIMIT:
                self._leave()

        def on_message_complete(self) -> None:
            """A request is whole."""
            self._body_goes_on = False
            self._stop_waiting_for_rest()
            super().on_message_complete()

        def on_response_complete(self) -> None:
            """An answer is whole; the request may not be."""
            super().on_response_complete()
            if self.cycle.response_complete and not self.transport.is_closing():
                waiting[self] = None
            if self._body_goes_on and not self.transport.is_closing():
                self._rest_timer = self.loop.call_later(seconds, self.transport.close)

        def send_400_response(self, msg: str) -> None:
            """Answer what cannot be parsed."""
            self._refuse(400, "This is not a request of HTTP/1.1")

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._answered = cycle
            if cycle.scope["http_version"] == "1.0":
                app = _UntilClosed(app, cycle)
            super()._start_asgi_task(cycle, app)

        def _tell_answered(self) -> None:
            """Let the request that is answered know that its client has gone.

            uvicorn tells the newest one alone, which may wait behind it.
            """
            if self._answered is not None and not self._answered.response_complete:
                self._answered.disconnected = True
                self._answered.message_event.set()

        def _make_room(self) -> None:
            del waiting[self]
            self.transport.close()

        def _leave(self) -> None:
            self._tell_answered()
            self.transport.close()

        def _stop_waiting_for_rest(self) -> None:
            if self._rest_timer is not None:
                self._rest_timer.cancel()
                self._rest_timer = None

        @property
        def _may_answer(self) -> bool:
            """Whether what is written now is read as the answer to the newest request."""
            cycle = self.cycle
            if cycle is None or self.pipeline:
                return not self.pipeline
            return not cycle.response_started or (
                cycle.response_complete and not self._body_goes_on
            )

        def _too_slow(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                # The head of the next request, while this one is answered.
                self._head_timer = self.loop.call_later(seconds, self._too_slow)
            elif not self.transport.is_closing():
                self._refuse(408, "The request's head did not arrive in time")

        def _refuse(self, status: int, message: str) -> None:
            if not self._may_answer:
                self._leave()
                return
            body = json.dumps(ApiError(status, message).envelope).encode()
            head = b"HTTP/1.1 %d %s\r\n" % (status, _REASONS[status])
            head += b"content-type: application/json\r\nconnection: close\r\n"
            head += b"x-content-type-options: nosniff\r\n"
            head += b"content-length: %d\r\n\r\n" % len(body)
            self.transport.write(head + body)
            self.transport.close()

    return BoundedProtocol


class _UntilClosed:
    """Sends answers of unknown length as HTTP/1.0 has them: until the connection is closed.

    uvicorn would send chunks, which that version does not know.

    Args:
        app: what is served.
        cycle: uvicorn's, of the one request.
    """

    def __init__(self, app: ASGIApp, cycle: Any) -> None:
        self._app = app
        self._cycle = cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        cycle = self._cycle

        async def unchunked(message: Message) -> None:
            if message["type"] == "http.response.start":
                if not any(name.lower() == b"content-length" for name, _ in message["headers"]):
                    cycle.chunked_encoding, cycle.expected_content_length = False, math.inf
            elif not message.get("more_body") and cycle.expected_content_length == math.inf:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, unchunked)
