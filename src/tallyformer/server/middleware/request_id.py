"""Every answer says the request's id, which a client may choose, and is what its type says.

This is the outermost layer. Its `send` lies in `scope["state"]["send_on"]` for the parts of a
stream: all layers look at heads and ends alone.
"""

from __future__ import annotations

import os
import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallyformer.server import headers

HEADER = "x-request-id"
_NAME = HEADER.encode()
_USABLE = re.compile(r"[\w.-]{1,64}", re.ASCII)


class RequestIds:
    """Puts an id into `scope["state"]["request_id"]` and into the answer's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = headers.value(scope, _NAME) or ""
        request_id = given if _USABLE.fullmatch(given) else f"req_{os.urandom(16).hex()}"
        state = scope.setdefault("state", {})
        state["request_id"], state["send_on"] = request_id, send

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = MutableHeaders(scope=message)
                told[HEADER] = request_id
                told["x-content-type-options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, send_with_id)
