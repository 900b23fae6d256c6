"""What a client of Ray's proxy gets when the replica that answers is lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallyformer.serving.proxy import WholeAnswers, middlewares

from .test_coalescing import part, start


def answered(app: ASGIApp, *, gone: bool = False) -> list[Message]:
    found: list[Message] = []

    async def send(message: Message) -> None:
        found.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect" if gone else "http.request"}

    scope: Any = {"type": "http"}
    asyncio.run(WholeAnswers(app)(scope, receive, send))
    return found


def lost_after(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)

    return app


def test_a_stream_ends_with_an_error_event() -> None:
    found = answered(lost_after(start("text/event-stream"), part(b"data: 1\n\n")))
    last = found[-1]
    assert last["more_body"] is False
    error = json.loads(last["body"].removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"]) == ("replica_lost", "server_error")
    assert last["body"].endswith(b"\n\n")


def test_an_answer_that_has_not_begun_is_503_with_retry_after() -> None:
    head, body = answered(lost_after())
    assert head["status"] == 503
    assert dict(head["headers"])[b"retry-after"] == b"1"
    assert json.loads(body["body"])["error"]["code"] == "replica_lost"


def test_json_that_was_cut_off_is_not_made_to_look_whole() -> None:
    messages = [start("application/json"), part(b'{"a"')]
    assert answered(lost_after(*messages)) == messages


def test_a_whole_answer_and_a_client_that_has_gone_get_nothing_more() -> None:
    whole = [start("text/event-stream"), part(b"data: 1\n\n"), part(b"", more=False)]
    assert answered(lost_after(*whole)) == whole
    assert answered(lost_after(*whole[:2]), gone=True) == whole[:2]


def test_ray_is_given_what_starlette_calls_a_middleware() -> None:
    (one,) = middlewares()
    assert one.cls is WholeAnswers


def test_what_ray_refuses_has_the_envelope_and_none_of_its_words() -> None:
    head = start("text/plain")
    head["status"] = 429
    head["headers"].append((b"retry-after", b"2"))
    refused, body = answered(lost_after(head, part(b"dropped (num_queued=3)", more=False)))
    assert refused["status"] == 429
    assert dict(refused["headers"])[b"retry-after"] == b"2"
    assert json.loads(body["body"])["error"]["code"] == "queue_full"
    assert b"dropped" not in body["body"]
