"""Fewer parts, the same bytes, the first one at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallyformer.serving.coalescing import Coalesced

LONG = 3600.0


def start(kind: str) -> Message:
    headers = [(b"content-type", kind.encode())]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def part(body: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def sends(*messages: Message, kind: str = "text/event-stream; charset=utf-8") -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (start(kind), *messages):
            await send(message)

    return app


async def passed(app: ASGIApp, seconds: float) -> list[Message]:
    found: list[Message] = []

    async def send(message: Message) -> None:
        found.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope: Any = {"type": "http"}
    await Coalesced(app, seconds=seconds)(scope, receive, send)
    return found


def test_the_first_part_leaves_at_once_and_the_rest_together_at_the_end() -> None:
    app = sends(part(b"a"), part(b"b"), part(b"c"), part(b"", more=False))
    found = asyncio.run(passed(app, LONG))
    assert found[1:] == [part(b"a"), part(b"bc", more=False)]


def test_what_waits_leaves_without_another_part() -> None:
    """The application sends, then is silent until what it sent has left."""
    left = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (start("text/event-stream"), part(b"a"), part(b"b"), part(b"c")):
            await send(message)
        await left.wait()
        await send(part(b"d"))
        await send(part(b"", more=False))

    found: list[Message] = []

    async def send(message: Message) -> None:
        found.append(message)
        if b"c" in message.get("body", b""):
            left.set()

    async def run() -> None:
        async with asyncio.timeout(60):
            scope: Any = {"type": "http"}
            await Coalesced(app, seconds=0.01)(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]

    asyncio.run(run())
    assert found[1:3] == [part(b"a"), part(b"bc")]
    assert b"".join(m.get("body", b"") for m in found) == b"abcd"
    assert [m.get("more_body") for m in found[1:]].count(False) == 1


def test_an_application_that_fails_loses_nothing_that_it_sent() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (start("text/event-stream"), part(b"a"), part(b"b")):
            await send(message)
        raise KeyError("on purpose")

    found: list[Message] = []

    async def send(message: Message) -> None:
        found.append(message)

    async def run() -> None:
        scope: Any = {"type": "http"}
        await Coalesced(app, seconds=LONG)(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]

    with pytest.raises(KeyError):
        asyncio.run(run())
    assert found[1:] == [part(b"a"), part(b"b")]


def test_what_is_not_a_stream_of_events_passes_as_it_is() -> None:
    messages = [part(b"a"), part(b"b"), part(b"", more=False)]
    found = asyncio.run(passed(sends(*messages, kind="application/json"), LONG))
    assert found[1:] == messages
