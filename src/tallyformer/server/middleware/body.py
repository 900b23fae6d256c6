"""Bodies: JSON alone, not longer than allowed, and not slower."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallyformer.server import headers
from tallyformer.server.api_error import ApiError


class Bodies:
    """Refuses other types than JSON (415), long bodies while they come in (413), slow ones (408).

    And any other expectation than an answer 100 before the body is sent (417).

    Args:
        app: what is served.
        most_bytes: of a body.
        seconds: in which all of it must arrive, from when the application begins to read.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int, seconds: float) -> None:
        self._app = app
        self._most = most_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is not None:
            await refused.send(scope, receive, send)
            return
        await self._app(scope, _Bounded(receive, self._most, self._seconds), send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        for expected in headers.values(scope, b"expect"):
            if expected.lower() != "100-continue":
                return ApiError(417, "Expect: only 100-continue can be met. Omit this header")
        length = headers.value(scope, b"content-length")
        if length is not None and length.isdecimal() and int(length[:19]) > self._most:
            return _too_long(self._most)
        coded = headers.values(scope, b"transfer-encoding")
        if length in (None, "0") and not coded:
            return None
        if not is_json(headers.value(scope, b"content-type") or ""):
            return ApiError(415, "A body must be JSON. Send it with Content-Type: application/json")
        encoding = headers.value(scope, b"content-encoding") or "identity"
        if encoding.lower() != "identity" or any(one.lower() != "chunked" for one in coded):
            return ApiError(415, "A body must not be compressed. Send it without Content-Encoding")
        return None


class _Bounded:
    """`receive` that counts."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive = receive
        self._most = most
        self._seconds = seconds
        self._deadline: float | None = None
        self._read = 0
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        clock = asyncio.get_running_loop().time
        self._deadline = self._deadline or clock() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "The body did not arrive in time. Send it faster") from None
        self._read += len(message.get("body", b""))
        if self._read > self._most:
            raise HTTPException(413, _too_long(self._most).message)
        self._whole = not message.get("more_body", False)
        return message


def is_json(content_type: str) -> bool:
    """Whether a Content-Type is that of JSON."""
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _too_long(most: int) -> ApiError:
    return ApiError(413, f"A body may have {most} bytes. Send less, or raise --max-body-bytes")
