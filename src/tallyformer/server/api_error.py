"""What a client is told when something is wrong: one envelope for every status.

    {"error": {"message": "...", "type": "...", "param": null, "code": null}}

A message never holds a path, an address, a type of Python or what a client sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_MESSAGES = {
    404: "There is no such path. See /docs for those that there are",
    405: "This path does not take this method. See the header Allow",
    500: "The server failed at this request. Nothing is wrong with it; try again later",
}


class ApiError(Exception):
    """A refusal or failure, as a client reads it.

    Args:
        status: of HTTP, 400 to 599.
        message: what is wrong and the fix, in one line.
        param: the request's field that is wrong, as `messages.0.content`.
        code: a word that programs compare.
        headers: of the answer, beside the usual ones.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def envelope(self) -> dict[str, Any]:
        """The body of the answer."""
        return {
            "error": {
                "message": self.message,
                "type": error_type(self.status),
                "param": self.param,
                "code": self.code,
            }
        }

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with this error."""
        body = json.dumps(self.envelope).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **self.headers,
        }
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


def error_type(status: int) -> str:
    """The envelope's `type` for a status."""
    if status in _TYPES:
        return _TYPES[status]
    return "invalid_request_error" if status < 500 else "server_error"


def usual_message(status: int, detail: str) -> str:
    """What is said for a status that a library chose."""
    return _MESSAGES.get(status, detail)


def unavailable(message: str, *, code: str, retry_after: int = 1) -> ApiError:
    """503: the server cannot answer now but will later."""
    return ApiError(503, message, code=code, headers={"Retry-After": str(retry_after)})
