"""A client of the OpenAI API that takes little of a processor: httptools on asyncio's transports.

What a load generator computes, it takes from the server on the same cores; httpx needs several
times as much for a stream as the server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import httptools

from tallyformer.bench.target import Counts, RequestFailed

Body = dict[str, Any]


class Connection(asyncio.Protocol):
    """A connection that carries one request after another."""

    def __init__(self) -> None:
        self.usable = True
        self.status = 0
        self._transport: asyncio.Transport | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._received = bytearray()
        self._whole = False
        self._news = asyncio.Event()

    def send(self, request: bytes) -> None:
        self._begin()
        assert self._transport is not None
        self._transport.write(request)

    async def body(self) -> AsyncIterator[bytes]:
        """The body as it comes; it ends early where the connection does."""
        while True:
            await self._news.wait()
            self._news.clear()
            received, self._received = bytes(self._received), bytearray()
            if received:
                yield received
            if self._whole or not self.usable:
                return

    @property
    def whole(self) -> bool:
        """Whether the body came to its end."""
        return self._whole

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._news.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._received += body
        self._news.set()

    def on_message_complete(self) -> None:
        self._whole = True
        self.usable = self.usable and self._parser.should_keep_alive()
        self._news.set()


class Client:
    """Asks a server. Connections are kept and used again.

    Args:
        url: as http://127.0.0.1:8000.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._idle: list[Connection] = []

    def request(self, path: str, body: Body | None) -> bytes:
        """A request as it is sent; made before, it costs nothing while time is measured."""
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {self._host}\r\n"
        if body is None:
            return f"{head}\r\n".encode()
        sent = json.dumps(body).encode()
        head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
        return head.encode() + sent

    @contextlib.asynccontextmanager
    async def asked(self, request: bytes) -> AsyncIterator[Connection]:
        """A connection on which a request has been sent; it is closed unless its answer was read.

        Raises:
            RequestFailed: there is no connection.
        """
        connection = await self._connection()
        connection.send(request)
        try:
            yield connection
        finally:
            if connection.whole and connection.usable:
                self._idle.append(connection)
            else:
                connection.close()

    async def stream(self, request: bytes, output_tokens: int, heard: Callable[[], None]) -> Counts:
        """Have a prompt answered as a stream; `heard` is called at each part with text.

        Raises:
            RequestFailed: there is no whole answer, or not of so many tokens.
        """
        usage: Body | None = None
        done, rest = False, b""
        async with self.asked(request) as connection:
            async for received in connection.body():
                if connection.status != 200:
                    continue
                *events, rest = (rest + received).split(b"\n\n")
                for event in events:
                    data = event.partition(b"data: ")[2]
                    if data == b"[DONE]":
                        done = True
                    elif data:
                        usage = _heard(json.loads(data), heard) or usage
            if connection.status != 200:
                raise RequestFailed(f"HTTP {connection.status}")
            if not connection.whole or not done or usage is None:
                raise RequestFailed("stream cut off")
        if usage["completion_tokens"] != output_tokens:
            raise RequestFailed("an answer of another length", str(usage["completion_tokens"]))
        return Counts(int(usage["prompt_tokens"]), output_tokens)

    async def answer(self, path: str, body: Body | None) -> tuple[int, bytes]:
        """Status and body of an answer that is no stream.

        Raises:
            RequestFailed: there is no whole answer.
        """
        async with self.asked(self.request(path, body)) as connection:
            whole = b"".join([part async for part in connection.body()])
            if not connection.whole:
                raise RequestFailed("answer cut off")
            return connection.status, whole

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        try:
            made = await loop.create_connection(Connection, self._host, self._port)
        except OSError as error:
            raise RequestFailed("no connection", str(error)) from None
        return made[1]


def _heard(event: Body, heard: Callable[[], None]) -> Body | None:
    """The usage in an event of a stream."""
    if "error" in event:
        raise RequestFailed("error in the stream", str(event["error"]))
    for choice in event["choices"]:
        if choice.get("text") or (choice.get("delta") or {}).get("content"):
            heard()
    usage: Body | None = event.get("usage")
    return usage
