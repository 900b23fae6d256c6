"""The one shape of every error."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """The body of every answer of status 400 and above."""

    error: ErrorDetail


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses for a route's `responses`."""
    return {status: {"model": ErrorEnvelope} for status in statuses}


_EVENT = {
    "type": "object",
    "description": "One of the events; `data` is JSON, or [DONE].",
    "properties": {name: {"type": "string"} for name in ("data", "event", "id")},
    "required": ["data"],
}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": _EVENT}}}
}
"""For `responses` of a route that also answers as a stream of events."""
EVERYWHERE = (400, 401, 403, 405, 408, 413, 415, 417, 422, 429, 500, 503)
"""What any route may answer."""
