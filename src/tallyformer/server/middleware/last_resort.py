"""What nobody caught becomes a 500 that says nothing about the inside; the log knows."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallyformer.server.api_error import ApiError, usual_message

SERVER = "tallyformer.server"


class LastResort:
    """Answers what failed with the envelope; a started answer is cut off."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._logger = logging.getLogger(SERVER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watching(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watching)
        except ApiError as error:
            if started:
                raise
            await error.send(scope, receive, send)
        except Exception as error:
            fields = {"request_id": scope.get("state", {}).get("request_id")}
            self._logger.error("request failed", exc_info=error, extra={"fields": fields})
            if started:
                raise CutOff from None
            await ApiError(500, usual_message(500, "")).send(scope, receive, send)


class CutOff(Exception):  # noqa: N818 - it says what happens to the answer
    """An answer ends in the middle: the connection is closed, so that the client notices."""
