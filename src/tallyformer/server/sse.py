"""Server-sent events as bytes: LF, one `data` line an event, comments to keep a connection alive.

Comments are whole lines that begin with a colon: no client takes one for an event, while a lone
`id:`, `retry:` or an empty `data:` becomes an empty event in several.
Source: WHATWG HTML, 9.2.5 and 9.2.6.
"""

from __future__ import annotations

import json
from typing import Any

MEDIA_TYPE = "text/event-stream"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Proxies pass every event on at once."""
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": waiting\n\n"
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
"""Made once: `json.dumps` would make one for each token."""


def event(data: bytes, event_id: int | None = None, name: str | None = None) -> bytes:
    """One event.

    Args:
        data: without line breaks, as `json_bytes` makes it.
        event_id: where a client may ask to continue behind this event.
        name: the event's type, where a protocol wants one.
    """
    assert b"\n" not in data and b"\r" not in data
    head = b"" if event_id is None else b"id: %d\n" % event_id
    if name is not None:
        head += b"event: %s\n" % name.encode("ascii")
    return b"%sdata: %s\n\n" % (head, data)


def json_bytes(value: Any) -> bytes:
    """JSON in ASCII without spaces, on one line."""
    return _ENCODER.encode(value).encode("ascii")
