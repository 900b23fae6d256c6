"""Ray's proxies end every answer: a replica that dies leaves its clients an error, not silence.

A proxy imports this where the variable RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH of its
environment is `tallyformer.serving.proxy:middlewares`.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallyformer.server import sse
from tallyformer.server.api_error import ApiError, unavailable

_LOST = unavailable("The replica that answered was lost. Send this again", code="replica_lost")
_OF_RAY = {
    404: ("There is no application at this path", "not_found"),
    408: ("The answer took longer than the proxy allows", "timeout"),
    429: ("Too many requests wait. Send this again after the seconds in Retry-After", "queue_full"),
    503: ("No replica can answer now. Send this again", "unavailable"),
}
"""What Ray itself answers, in plain text and with names of its own."""


def middlewares() -> list[Middleware]:
    """What Ray Serve puts around its proxies' application."""
    return [Middleware(WholeAnswers)]


class WholeAnswers:
    """Gives an answer that was left unfinished an end that clients understand.

    One that has not begun becomes 503. An event stream ends with an error event, after which
    nothing may follow. Another body that has begun cannot be mended: its connection is cut. What
    Ray itself refuses has the API's envelope, as all other errors.

    Args:
        app: what is served.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _Seen(send)
        client = _Client(receive)
        await self._app(scope, client.receive, seen.send)
        if client.gone or seen.ended:
            return
        if seen.of_ray is not None:
            await seen.of_ray.send(scope, receive, send)
        elif not seen.began:
            await _LOST.send(scope, receive, send)
        elif seen.streams:
            body = sse.event(sse.json_bytes(_LOST.envelope))
            await send({"type": "http.response.body", "body": body, "more_body": False})


class _Seen:
    """How far an answer is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.began = self.ended = self.streams = False
        self.of_ray: ApiError | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began = True
            self.of_ray = _refusal_of_ray(message)
            kind = Headers(raw=message["headers"]).get("content-type", "")
            self.streams = kind.startswith(sse.MEDIA_TYPE)
        if self.of_ray is not None:
            return
        if message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
        await self._send(message)


class _Client:
    """Whether the client is still there."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.gone = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.gone = self.gone or message["type"] == "http.disconnect"
        return message


def _refusal_of_ray(start: Message) -> ApiError | None:
    """What to say instead, if this is not from a replica: those never answer an error as text."""
    headers, status = Headers(raw=start["headers"]), start["status"]
    if status < 400 or headers.get("content-type", "").startswith("application/json"):
        return None
    message, code = _OF_RAY.get(status, ("The server failed at this request", None))
    wait = {"Retry-After": headers["retry-after"]} if "retry-after" in headers else {}
    return ApiError(status, message, code=code, headers=wait)
