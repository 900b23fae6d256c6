"""A real server on loopback whose answers take known times, and a tiny real model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from ..inference.conftest import tally_folder, tokenizer  # noqa: F401  (fixtures)

PATIENCE = 600
Json = dict[str, Any]


@dataclass
class FakeServer:
    """OpenAI's API with made-up answers. What it does wrong is set by the tests.

    Attributes:
        prefill, step: seconds before the first token and between tokens.
        key: that it wants, or None.
        models: that it lists.
        usage: whether streams end with it.
        completions: whether that endpoint is there.
        knows_ignore_eos: or answers it with a 400.
        spoil: what happens to the request of this number: "", "503", "cut", "error", "empty".
        tokens_per_word: of prompts.
        overhead: tokens that every prompt has besides.
        context: most tokens of a prompt.
        lingers: seconds that the answer stays open after its end.
        seen: bodies of requests.
        clients: ports that they came from, one a connection.
    """

    prefill: float = 0.0
    step: float = 0.0
    key: str | None = None
    models: tuple[str, ...] = ("fake",)
    usage: bool = True
    completions: bool = True
    knows_ignore_eos: bool = True
    spoil: Callable[[int], str] = lambda number: ""
    tokens_per_word: float = 1.0
    overhead: int = 0
    context: int = 1000
    lingers: float = 0.0
    seen: list[Json] = field(default_factory=list)
    clients: set[int] = field(default_factory=set)
    url: str = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        keys = [v.decode() for k, v in scope["headers"] if k == b"authorization"]
        if self.key is not None and keys != [f"Bearer {self.key}"]:
            return await _json(send, 401, {"error": {"message": "no key"}})
        if scope["path"] == "/v1/models":
            return await _json(send, 200, {"data": [{"id": name} for name in self.models]})
        chat = scope["path"] == "/v1/chat/completions"
        if not chat and not (self.completions and scope["path"] == "/v1/completions"):
            return await _json(send, 404, {"detail": "Not Found"})
        message = await receive()
        body = json.loads(message["body"])
        if body["model"] not in self.models:
            error = {"message": f"The model {body['model']} is not there"}
            return await _json(send, 404, {"error": error})
        if "ignore_eos" in body and not self.knows_ignore_eos:
            return await _json(send, 400, {"error": {"message": "ignore_eos is not known"}})
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        tokens = self.overhead + round(self.tokens_per_word * len(prompt.split()))
        if tokens > self.context:
            return await _json(send, 400, {"error": {"message": "the prompt is too long"}})
        self.seen.append(body)
        self.clients.add(scope["client"][1])
        spoilt = self.spoil(len(self.seen))
        if spoilt == "503":
            return await _json(send, 503, {"error": {"message": "too busy"}})
        kind = b"text/event-stream"
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]}
        )
        async for event in self._answer(body, chat, spoilt):
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(self.lingers)
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, body: Json, chat: bool, spoilt: str) -> AsyncIterator[bytes]:
        def choice(text: str, reason: str | None = None) -> bytes:
            content: Json = {"delta": {"content": text}} if chat else {"text": text}
            return _event({"choices": [{"index": 0, **content, "finish_reason": reason}]})

        if chat:
            yield _event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        yield b": waiting\n\n"
        await asyncio.sleep(self.prefill)
        count = body["max_tokens"]
        for number in range(count):
            if number:
                await asyncio.sleep(self.step)
            if spoilt == "cut" and number == count - 1:
                return
            if spoilt == "error" and number == count - 1:
                yield _event({"error": {"message": "out of memory"}})
                return
            yield choice("" if spoilt == "empty" else f" {number}")
        yield choice("", "length")
        if self.usage:
            prompt = body["messages"][0]["content"] if chat else body["prompt"]
            words = self.overhead + round(self.tokens_per_word * len(prompt.split()))
            usage = {"prompt_tokens": words, "completion_tokens": count}
            yield _event({"choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"


def _event(value: Json) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _json(send: Any, status: int, value: Json) -> Awaitable[None]:
    async def both() -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(value).encode()})

    return both()


@contextlib.contextmanager
def serving(app: FakeServer) -> Iterator[FakeServer]:
    """The server in a thread of this process, on a free port."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        limit = time.monotonic() + PATIENCE
        while not server.started:
            assert time.monotonic() < limit
            time.sleep(0.01)
        app.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield app
        finally:
            server.should_exit = server.force_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeServer]]:
    """Starts a server with these settings."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(FakeServer(**settings)))
