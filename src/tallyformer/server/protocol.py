"""uvicorn's connection, with bounded heads: in bytes and in time.

What is not HTTP gets the envelope too.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tallyformer.server.api_error import ApiError

MOST_UNREAD = 16 << 20
"""Bytes of a body that are taken after its answer."""
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


def bounded_protocol(*, most_bytes: int, seconds: float) -> type[asyncio.Protocol]:
    """The class of connections whose requests' heads are bounded.

    Args:
        most_bytes: of the request line and all headers.
        seconds: in which a new connection's first head, and the rest of a begun one, must arrive.
    """

    class BoundedProtocol(HttpToolsProtocol):
        """A connection."""

        def connection_made(self, transport: Any) -> None:
            """Begin to wait for the first head."""
            self._head_bytes: int | None = 0
            self._head_timer = self.loop.call_later(seconds, self._too_slow)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            """The other side has gone."""
            self._head_timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Take what comes; a head that is too long is refused before it is parsed."""
            if self._head_bytes is not None:
                end = data.find(b"\r\n\r\n")
                self._head_bytes += len(data) if end < 0 else end
                if self._head_bytes > most_bytes:
                    self._refuse(431, f"The request's head is longer than {most_bytes} bytes")
                    return
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
            self._head_bytes = None
            self._head_timer.cancel()
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Part of a body. Of one that nobody reads, a bounded part is waited for.

            Closing at once could take the answer away from a client that still sends.
            """
            if self.cycle.response_complete:
                self._unread += len(body)
                if self._unread > MOST_UNREAD:
                    self.transport.close()
                    return
            super().on_body(body)

        def send_400_response(self, msg: str) -> None:
            """Answer what cannot be parsed."""
            self._refuse(400, "This is not a request of HTTP/1.1")

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self._refuse(408, "The request's head did not arrive in time")

        def _refuse(self, status: int, message: str) -> None:
            body = json.dumps(ApiError(status, message).envelope).encode()
            head = b"HTTP/1.1 %d %s\r\n" % (status, _REASONS[status])
            head += b"content-type: application/json\r\nconnection: close\r\n"
            head += b"x-content-type-options: nosniff\r\n"
            head += b"content-length: %d\r\n\r\n" % len(body)
            self.transport.write(head + body)
            self.transport.close()

    return BoundedProtocol
