"""One envelope for everything that goes wrong, on real connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, HTTPException
from starlette.responses import StreamingResponse

from tallyformer.server.app import MOST_ASKED, create_app
from tallyformer.server.middleware.access_log import JsonLines
from tallyformer.server.settings import ServerSettings

from .conftest import Running, running


def check_envelope(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"].strip()
    answer.text.encode("ascii")
    for inside in ("/work", ".py", "0x", "Traceback", "pydantic", "class "):
        assert inside not in answer.text
    detail: dict[str, Any] = body["error"]
    return detail


def raw(server: Running, *parts: bytes) -> bytes:
    """All that a server answers to these bytes until it closes."""
    with socket.create_connection(server.address, timeout=60) as connection:
        with contextlib.suppress(ConnectionError):  # it may answer and close before it has all
            for part in parts:
                connection.sendall(part)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def envelope_of(answer: bytes) -> dict[str, Any]:
    detail: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return detail


def test_an_unknown_path_is_a_404(http: httpx2.Client) -> None:
    assert check_envelope(http.get("/no/such/../path"), 404)["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/v1/models", "GET"), ("/v1/generations/x", "DELETE, GET"), ("/ready", "GET, HEAD")],
)
def test_a_wrong_method_is_a_405_that_names_all_right_ones(
    http: httpx2.Client, path: str, methods: str
) -> None:
    answer = http.put(path, json={})
    check_envelope(answer, 405)
    assert answer.headers["allow"] == methods


@pytest.mark.parametrize("route", sorted(MOST_ASKED))
@pytest.mark.parametrize("root", ["", "/model"])
def test_the_routes_asked_most_answer_alike_under_a_prefix(
    tally_folder: Path, route: str, root: str
) -> None:
    app = create_app(ServerSettings(models={"tiny": tally_folder}))

    async def asked(method: str) -> httpx2.Response:
        transport = httpx2.ASGITransport(app, root_path=root)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, root + route, json={"n": "many"})

    detail = check_envelope(asyncio.run(asked("POST")), 400)
    assert detail["param"] == "n"
    answer = asyncio.run(asked("PUT"))
    check_envelope(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_monitors_may_ask_for_heads_alone(http: httpx2.Client) -> None:
    for path in ("/health", "/ready"):
        answer = http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == http.get(path).headers["content-length"]


def test_an_unknown_model_is_a_404_that_names_the_parameter(http: httpx2.Client) -> None:
    detail = check_envelope(http.get("/v1/models/other"), 404)
    assert (detail["param"], detail["code"]) == ("model", "model_not_found")


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "text/plain", "", "text/json"])
def test_a_body_that_is_not_json_is_a_415(http: httpx2.Client, kind: str) -> None:
    answer = http.post("/v1/models", content=b"--x--", headers={"content-type": kind})
    check_envelope(answer, 415)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 503])
def test_every_status_has_the_one_envelope(tally_folder: Path, status: int) -> None:
    """422 too, though what is wrong with a request is a 400 here."""
    app = create_app(ServerSettings(models={"tiny": tally_folder}))

    async def fails() -> None:
        raise HTTPException(status)

    async def asked() -> httpx2.Response:
        app.add_api_route("/fails", fails)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/fails")

    check_envelope(asyncio.run(asked()), status)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": [5]}, "messages.0: it must be an object"),
        ({"messages": "x"}, "messages: it must be a list"),
        ({"n": "2"}, "n: it must be an integer"),
        ({"stream": "yes"}, "stream: it must be true or false"),
        ({"model": 5}, "model: it must be a string"),
        ({"user": "x" * 257}, "user: it must have at most 256 characters"),
        ({"messages": []}, "messages: it must have at least 1 item, not 0"),
        ({"logit_bias": [1]}, "logit_bias: it must be an object"),
        ({"logit_bias": {"5": 101}}, "logit_bias: it must be less than or equal to 100"),
        ({"stop_token_ids": [-1]}, "stop_token_ids.0: it must be greater than or equal to 0"),
        ({"user": "\ud800"}, "user: it must be a string, without unpaired surrogates"),
    ],
)
def test_what_is_wrong_is_said_in_words_of_json(
    http: httpx2.Client, body: dict[str, Any], words: str
) -> None:
    asked = json.dumps({"messages": [{"role": "user", "content": "a"}], **body})
    headers = {"content-type": "application/json"}
    answer = http.post("/v1/chat/completions", content=asked, headers=headers)
    assert check_envelope(answer, 400)["message"] == words


ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/v1/responses": {"input": "a", "max_output_tokens": 1},
    "/generate": {"prompt": "a", "model_name": "tiny", "max_new_tokens": 1},
    "/completion": {"prompt": "a", "n_predict": 1},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": [{"role": "user", "content": "a"}]},
}
WRONG = (-5, "no", [[]], {"a": [1]}, True, -(10**30))


@pytest.mark.parametrize("path", ASKED)
def test_what_is_wrong_with_a_field_is_said_with_the_name_that_the_client_wrote(
    http: httpx2.Client, path: str
) -> None:
    described = http.get("/openapi.json").json()
    taken = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    fields = described["components"]["schemas"][taken["schema"]["$ref"].rpartition("/")[2]]
    refused = 0
    for field in fields["properties"]:
        for value in WRONG:
            one_of = {"content": "prompt", "messages": "prompt"}.get(field)
            body = {name: v for name, v in ASKED[path].items() if name != one_of}
            answer = http.post(path, json={**body, field: value})
            if answer.status_code == 200:
                continue
            detail = check_envelope(answer, 404 if "model" in field and value == "no" else 400)
            if value != "no" or "model" not in field:
                assert detail["message"].startswith(field), (value, detail)
                refused += 1
            assert detail["param"].partition(".")[0] == field, (value, detail)
    assert refused > 3


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_of_json_is_a_400_that_names_its_place(
    http: httpx2.Client, path: str, number: str
) -> None:
    for value, place in (
        ("?", "odd"),
        ('[1, {"in": [0.5, ?]}]', "odd.1.in.1"),
        ('{"\\ud800": ?}', "odd.\\ud800"),
        ('{"a b": ?}', None),
    ):
        body = json.dumps({"model": "tiny", **ASKED[path], "odd": 0.5})
        sent = body.replace('"odd": 0.5', f'"odd": {value}').replace("?", number)
        answer = http.post(path, content=sent, headers={"content-type": "application/json"})
        detail = check_envelope(answer, 400)
        assert detail["param"] == place
        assert detail["message"] == f"{place or 'odd.a b'}: it must be a finite number"


def test_an_empty_name_of_a_model_is_none(http: httpx2.Client) -> None:
    for path, body in ASKED.items():
        answer = http.post(path, json={**body, "model": "", "model_name": "tiny"})
        assert answer.status_code == 200, (path, answer.text)


def test_a_compressed_body_is_a_415(http: httpx2.Client, served: Running) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    check_envelope(http.post("/v1/models", content=b"x", headers=headers), 415)
    answer = http.post("/tokenize", json={"prompt": "a"}, headers={"content-encoding": "Identity"})
    assert answer.status_code == 200
    head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Connection: close\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    sent = raw(served, head, b'f\r\n{"prompt": "a"}\r\n0\r\n\r\n')
    assert sent.startswith(b"HTTP/1.1 415 ")


def test_a_declared_body_that_is_too_long_is_a_413(http: httpx2.Client) -> None:
    headers = {"content-type": "application/json"}
    check_envelope(http.post("/v1/models", content=b"1" * (1 << 20 | 1), headers=headers), 413)


@pytest.mark.parametrize(
    "expected", ["200-ok", "100-continue, 200-ok", "100-continue\r\nExpect: x"]
)
def test_what_cannot_be_expected_is_a_417(served: Running, expected: str) -> None:
    head = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nExpect: {expected}\r\n"
    head += "Content-Type: application/json\r\nConnection: close\r\nContent-Length: 15\r\n\r\n"
    answer = raw(served, head.encode())
    assert answer.startswith(b"HTTP/1.1 417 ")
    envelope_of(answer)


def test_who_waits_with_the_body_is_told_to_send_it(served: Running) -> None:
    head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nExpect: 100-Continue\r\n"
    head += b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: 15\r\n\r\n"
    with socket.create_connection(served.address, timeout=60) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b'{"prompt": "a"}')
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_what_is_not_http_is_a_400(served: Running) -> None:
    answer = raw(served, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert envelope_of(answer)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "head",
    [
        [b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n"],
        [b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", *[b"x" * 1000] * 40],
        [b"GET /" + b"x" * 40_000],
        [b"GET /health HTTP/1.1\r\n", *[b"A: b\r\n" * 200] * 40],
    ],
)
def test_a_head_that_is_too_long_is_a_431(served: Running, head: list[bytes]) -> None:
    answer = raw(served, *head)
    assert answer.startswith(b"HTTP/1.1 431 ")
    envelope_of(answer)


def test_a_long_body_is_no_long_head(http: httpx2.Client) -> None:
    headers = {"content-type": "application/json"}
    check_envelope(http.post("/v1/models", content=b"1" * 900_000, headers=headers), 405)
    assert http.get("/health").status_code == 200


def test_a_head_that_does_not_arrive_is_a_408(tally_folder: Path) -> None:
    settings = ServerSettings(models={"tiny": tally_folder}, receive_timeout=0.2)
    with running(settings) as server:
        for begun in (b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\n"):
            answer = raw(server, begun)
            assert answer.startswith(b"HTTP/1.1 408 "), begun
            envelope_of(answer)


def test_a_kept_connection_may_be_idle_longer_than_a_head(tally_folder: Path) -> None:
    settings = ServerSettings(models={"tiny": tally_folder}, receive_timeout=0.2)
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        running(settings) as server,
        socket.create_connection(server.address, timeout=60) as kept,
    ):
        for _ in range(2):
            kept.sendall(request)
            answer = b""
            while not answer.endswith(b"}"):
                answer += kept.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            kept.settimeout(0.5)
            with pytest.raises(TimeoutError):
                kept.recv(1)
            kept.settimeout(60)


def _broken_routes(app: FastAPI) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("a private prompt")

    @app.post("/echo")
    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    @app.get("/cut")
    async def cut() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            raise ValueError("a private prompt")

        return StreamingResponse(parts())


@pytest.fixture(scope="module")
def broken(tally_folder: Path) -> Iterator[Running]:
    with running(ServerSettings(models={"tiny": tally_folder}), _broken_routes) as server:
        yield server


def test_a_defect_is_a_500_and_only_the_log_has_its_place(
    broken: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with broken.client() as http:
        detail = check_envelope(http.get("/broken"), 500)
    assert detail["type"] == "server_error"
    lines = [JsonLines().format(r) for r in caplog.records if r.name == "tallyformer.server"]
    assert any("test_errors.py" in line and "ValueError" in line for line in lines)
    assert "private" not in "".join(lines)


def test_a_defect_in_mid_answer_cuts_it_off(broken: Running) -> None:
    with broken.client() as http, pytest.raises(httpx2.RemoteProtocolError):
        http.get("/cut")
    with broken.client() as http:
        assert http.get("/health").status_code == 200


def test_a_chunked_body_that_is_too_long_is_a_413_while_it_comes(broken: Running) -> None:
    headers = {"content-type": "application/json"}
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1 << 28:
            sent += 1 << 16
            yield b"1" * (1 << 16)

    # The server may close before all was sent.
    with broken.client() as http, contextlib.suppress(httpx2.WriteError, httpx2.ReadError):
        check_envelope(http.post("/echo", content=endless(), headers=headers), 413)
    assert sent < 1 << 28


def test_a_client_that_sends_all_of_a_long_body_reads_the_413(broken: Running) -> None:
    chunks = [b"1" * (1 << 16)] * 64
    with broken.client() as http:
        headers = {"content-type": "application/json"}
        check_envelope(http.post("/echo", content=iter(chunks), headers=headers), 413)


def test_a_body_that_does_not_arrive_is_a_408(tally_folder: Path) -> None:
    settings = ServerSettings(models={"tiny": tally_folder}, receive_timeout=0.5)
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Connection: close\r\nContent-Length: 100\r\n\r\n"
    with running(settings, _broken_routes) as server:
        answer = raw(server, head, b"{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    envelope_of(answer)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[" * 100_000, b"\xff\xfe", b"nul", b"9" * 10_000, b'"', b"", b"[]", b'"text"'],
)
def test_a_body_that_is_not_a_json_object_is_a_400(broken: Running, body: bytes) -> None:
    with broken.client() as http:
        headers = {"content-type": "application/json"}
        check_envelope(http.post("/echo", content=body, headers=headers), 400)
