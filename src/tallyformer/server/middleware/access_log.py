"""One line of JSON a request: when, who, which route, how it ended. Never what was said."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ACCESS = "tallyformer.access"


class AccessLog:
    """Logs each request when it has ended.

    The route is that which was chosen, as `/v1/models/{name}`, not the path that was sent, which a
    client may fill with anything.

    Args:
        app: what is served.
        ended: called with route, status, and whether the answer was sent to its end; the status is
            that of the error which a stream ends with, where it does.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        ended: Callable[[str | None, int, bool], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._ended = ended
        self._clock = clock
        self._logger = logging.getLogger(ACCESS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._clock(), 0
        ended = False

        def end(whole: bool) -> None:
            nonlocal ended
            if ended:
                return
            ended = True
            seconds = self._clock() - began
            told = scope.get("state", {}).get("failed", status)
            self._ended(getattr(scope.get("route"), "path", None), told, whole)
            self._logger.info("request", extra={"fields": _fields(scope, status, seconds, whole)})

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body"):
                # Before the last byte: whoever has the answer finds it counted.
                end(whole=True)
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            end(whole=False)


def _fields(scope: Scope, status: int, seconds: float, finished: bool) -> dict[str, Any]:
    state = scope.get("state", {})
    route = scope.get("route")
    return {
        "request_id": state.get("request_id"),
        "method": scope["method"],
        "route": getattr(route, "path", None),
        "status": status,
        "failed": state.get("failed"),
        "ms": round(seconds * 1000, 1),
        "whole": finished,
        "key": state.get("owner"),
    }


class JsonLines(logging.Formatter):
    """A record as one line of JSON. Of an exception it keeps type and places, not its words.

    An exception's words may hold what a client sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            line["trace"] = _places(record.exc_info[2])
        return json.dumps(line)


def _places(trace: Any) -> list[str]:
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return places
