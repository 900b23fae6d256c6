from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tallyformer.bench.measuring import Measuring, Variant
from tallyformer.bench.server_target import ServerTarget, api_url, connect, read_key
from tallyformer.bench.settings import BenchSettings
from tallyformer.errors import RunError, TallyFormerError, UsageError

from .conftest import FakeServer

Serve = Callable[..., FakeServer]
SHORT = BenchSettings(
    prompt_tokens=(5,), output_tokens=4, streams=(2,), loads=(), seconds=0.4, warmup=0.1
)


def connected(url: str, **options: Any) -> ServerTarget:
    """A target whose connections have been closed again."""

    async def run() -> ServerTarget:
        target = await connect(url, **options)
        await target.close()
        return target

    return asyncio.run(run())


def measured(url: str, settings: BenchSettings = SHORT, **options: Any) -> Variant:
    async def run() -> Variant:
        target = await connect(url, **options)
        measuring = Measuring(target, settings, lambda cell: None)
        try:
            await measuring.run()
        finally:
            await target.close()
        return measuring.variant

    return asyncio.run(run())


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_known_delays_are_what_is_measured(endpoint: str, serve: Serve) -> None:
    """The first token with content counts, not the head, the role or a comment before it."""
    server = serve(prefill=0.1, step=0.03)
    variant = measured(server.url, endpoint=endpoint)
    found = variant.grid[0].summary
    assert found.requests and not found.failed
    assert found.output_tokens == 4
    assert found.ttft_ms and found.itl_ms and found.end_to_end_ms
    # Sleeps do not end early, so no request can have been faster than the server's own delays.
    assert found.ttft_ms.least >= 100
    assert found.end_to_end_ms.least >= 100 + 3 * 30
    for request in variant.grid[0].raw:
        assert request["chunks"] == 4 and request["tokens"] == 4
        assert request["last_s"] - request["due_s"] >= 0.1 + 3 * 0.03
        assert request["due_s"] <= request["sent_s"] <= request["first_s"] <= request["last_s"]
        assert request["last_s"] <= request["ended_s"]


def test_a_stream_keeps_its_connection(serve: Serve) -> None:
    """A new one for every request would be measured as time to the first token."""
    server = serve(step=0.001)
    variant = measured(server.url)
    assert len(variant.grid[0].raw) > 20 and not variant.grid[0].summary.failed
    assert len(server.clients) <= max(SHORT.streams)


def test_a_server_that_does_not_close_an_answer_does_not_hold_the_stream(serve: Serve) -> None:
    server = serve(lingers=60)
    variant = measured(server.url)
    assert not variant.grid[0].summary.failed
    assert len(server.seen) > 2


def test_failures_of_every_kind_are_counted_by_it(serve: Serve) -> None:
    kinds = ("", "503", "cut", "error", "empty")
    # The first two requests try the server out and find the words of a prompt.
    server = serve(spoil=lambda number: kinds[number % 5] if number > 2 else "")
    settings = BenchSettings(
        prompt_tokens=(5,), output_tokens=4, streams=(5,), loads=(), seconds=1.5, warmup=0.1
    )
    cell = measured(server.url, settings).grid[0]
    assert set(cell.summary.failures) == {
        "HTTP 503",
        "stream cut off",
        "error in the stream",
        "no text in the answer",
    }
    answered = cell.summary.requests - cell.summary.failed
    assert answered > 0
    assert cell.summary.ttft_ms and cell.summary.ttft_ms.count == answered
    assert {r["detail"] for r in cell.raw if r["failure"] == "HTTP 503"} == {"too busy"}


@pytest.mark.parametrize(("tokens_per_word", "overhead"), [(1.0, 0), (2.5, 0), (1.0, 7)])
def test_prompts_have_the_length_that_is_asked_for(
    tokens_per_word: float, overhead: int, serve: Serve
) -> None:
    server = serve(tokens_per_word=tokens_per_word, overhead=overhead)
    settings = BenchSettings(
        prompt_tokens=(10, 100), output_tokens=2, streams=(1,), loads=(), seconds=0.1, warmup=0.1
    )
    for cell in measured(server.url, settings).grid:
        assert cell.summary.prompt_tokens == pytest.approx(cell.prompt_tokens[0], abs=1)


def test_a_length_is_found_even_if_the_first_try_is_too_long(serve: Serve) -> None:
    server = serve(tokens_per_word=5, overhead=3, context=32)
    settings = BenchSettings(
        prompt_tokens=(18,), output_tokens=2, streams=(1,), loads=(), seconds=0.1, warmup=0.1
    )
    found = measured(server.url, settings).grid[0].summary
    assert not found.failed and found.prompt_tokens == 18


def test_no_prompt_is_sent_twice(serve: Serve) -> None:
    server = serve()
    settings = BenchSettings(
        prompt_tokens=(20,), output_tokens=2, streams=(2,), loads=(0.5,), seconds=0.3, warmup=0.1
    )
    measured(server.url, settings)
    prompts = [body["prompt"] for body in server.seen]
    assert len(set(prompts)) == len(prompts) > 5


def test_a_model_and_an_endpoint_are_found(serve: Serve) -> None:
    only_chat = serve(completions=False)
    target = connected(only_chat.url)
    assert (target.name, target.endpoint) == ("fake", "chat")
    assert connected(serve().url).endpoint == "completions"
    assert connected(serve(models=("a", "b")).url, model="b").name == "b"
    assert not connected(serve(knows_ignore_eos=False).url).fixed_length


def test_a_key_is_sent(serve: Serve) -> None:
    assert connected(serve(key="k").url, key="k").name == "fake"


def test_chunks_are_tokens_where_that_is_said(serve: Serve) -> None:
    server = serve(usage=False)
    found = measured(server.url, count_chunks=True).grid[0].summary
    assert found.output_tokens == 4 and not found.failed


def test_what_is_wrong_with_a_server_is_one_line_that_names_the_fix(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    cases: list[tuple[str, dict[str, Any], type[TallyFormerError], str]] = [
        (closed, {}, RunError, "tallyformer serve"),
        (closed, {"model": "fake"}, RunError, "tallyformer serve"),
        ("http://nowhere.invalid", {}, RunError, "correct the URL"),
        (serve(key="k").url, {}, RunError, "Give --api-key-file"),
        (serve(key="k").url, {"model": "fake"}, RunError, "Give --api-key-file"),
        (serve(key="k").url, {"key": "wrong"}, RunError, "Correct the --api-key-file"),
        (serve(models=("a", "b")).url, {}, UsageError, "a, b. Give --model"),
        (serve(models=()).url, {}, UsageError, "none. Give --model"),
        (serve().url, {"model": "other"}, UsageError, "--model"),
        (serve(usage=False).url, {}, RunError, "--count-chunks"),
        (serve(completions=False).url, {"endpoint": "completions"}, RunError, "up to /v1"),
        (serve().url + "/elsewhere", {}, RunError, "up to /v1"),
        (serve(spoil=lambda number: "503").url, {}, RunError, "too busy"),
    ]
    for url, options, kind, words in cases:
        with pytest.raises(kind) as raised:
            connected(url, **options)
        message = str(raised.value)
        assert words in message and "\n" not in message, message
        assert type(raised.value) is kind


@pytest.mark.parametrize(
    "url",
    ["http://", "ftp://x/v1", "http://x:99999/v1", "http://[x/v1", "http://x/v1?a=1", "://"],
)
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(UsageError, match="is not a server's URL"):
        api_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://x:8000",
        "http://x:8000/",
        "http://x:8000/v1",
        "http://x:8000/v1/",
        " http://x:8000/v1/completions",
        "http://x:8000/v1/chat/completions",
    ],
)
def test_all_forms_of_a_url_mean_the_same(url: str) -> None:
    assert api_url(url) == "http://x:8000/v1"


def test_a_file_without_one_key_is_said(tmp_path: Path) -> None:
    good, empty, two = (tmp_path / name for name in ("good", "empty", "two"))
    good.write_text("tf-key\n")
    empty.write_text("\n")
    two.write_text("one two\n")
    assert read_key(good) == "tf-key"
    for file in (empty, two, tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="--api-key-file"):
            read_key(file)


def _raw(answer: bytes, *, for_ever: bytes = b"") -> Iterator[str]:
    """A server that sends these bytes whatever it is asked, and then `for_ever` as long as it may.

    The list of models is given, so that everything else is about the stream.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(answer)
                    while for_ever:
                        connection.sendall(for_ever)
                    # What is closed with bytes that nobody has read is broken off.
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass

    threading.Thread(target=work, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
_HTML = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>\n<p>Welcome</p>\n\n</html>"
_USAGE = (
    b'data: {"choices": [{"text": " a", "finish_reason": "stop"}], "usage": %s}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize(
    ("answer", "for_ever", "words"),
    [
        (b"", b"", "connection broken"),
        (b"nonsense\r\n\r\n", b"", "connection broken"),
        (_HTML, b"", "no events in the answer: it is text/html, not a stream"),
        (b"HTTP/1.1 500 no\r\n\r\n<h1>Sorry\n</h1>", b"", "HTTP 500: <h1>Sorry </h1>"),
        (b"HTTP/1.1 500 no\r\n\r\n", b"x" * 65536, "HTTP 500: xxx"),
        (b"HTTP/1.1 302 no\r\nlocation: http://x/\r\n\r\n", b"", "HTTP 302"),
        (_STREAM, b"", "no events in the answer"),
        (_STREAM + b'data: {"choices": [{"te', b"", "no events in the answer"),
        (_STREAM + b'data: {"choices": [{"text": " a"}]}\n\ndata: {"ch', b"", "stream cut off"),
        (_STREAM + b"data: garbage\n\n", b"", "not JSON in the stream: garbage"),
        (_STREAM + b"data: %s1%s\n\n" % (b"[" * 9000, b"]" * 9000), b"", "not JSON"),
        (_STREAM + b"data: 7\n\n", b"", "not JSON in the stream: 7"),
        (_STREAM, b"\xff\x00garbage" * 8192, "no end of an event"),
        (_STREAM, (b"data: " + b"more" * 1000 + b"\n") * 16, "no end of an event"),
        (_STREAM, b": ping\n\n", "timeout"),
        (_STREAM + b'data: {"choices": 7}\n\n', b"", "not an answer's event"),
        (_STREAM + b'data: {"choices": ["a"]}\n\n', b"", "not an answer's event"),
        (_STREAM + b'data: {"choices": [{"delta": "a"}]}\n\n', b"", "not an answer's event"),
        (_STREAM + b'data: {"error": ["a"]}\n\n', b"", "error in the stream: ['a']"),
        *(
            (_STREAM + _USAGE % usage, b"", "not an answer's event")
            for usage in (b"7", b'{"prompt_tokens": 1}', b'{"prompt_tokens": -1}')
        ),
        (
            _STREAM + _USAGE % b'{"prompt_tokens": 1%s, "completion_tokens": 1}' % (b"0" * 99),
            b"",
            "not an answer's event",
        ),
    ],
)
def test_whatever_a_server_sends_is_one_line(answer: bytes, for_ever: bytes, words: str) -> None:
    timeout = 0.5 if words == "timeout" else 60.0
    with contextlib.contextmanager(_raw)(answer, for_ever=for_ever) as url:
        with pytest.raises(RunError) as raised:
            connected(url, model="fake", endpoint="completions", timeout=timeout)
        message = str(raised.value)
        assert words in message and "\n" not in message and len(message) < 600, message
        with pytest.raises(TallyFormerError) as raised:
            connected(url, timeout=timeout)
        assert "\n" not in str(raised.value)
