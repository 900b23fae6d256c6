"""What an attacker sends, to be taken for a page, a control token, two requests, or for much."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tallyformer.inference.llm import LLM
from tallyformer.server.settings import ServerSettings
from tallyformer.tokenizer.tokenizer import Tokenizer

from . import test_chat as chat
from .conftest import Running, running
from .test_errors import check_envelope, envelope_of, raw
from .test_load import CHAT, SHORT

XSS = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></textarea><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "<!--><iframe srcdoc='<script>alert(1)</script>'>",
    "\n\ndata: {}\n\nevent: x\r\n: <b>\u2028\u2029",
    "{{7*7}}${7*7}<%= 7*7 %>",
)
ODD = (
    "\x00",
    "\ud800",
    "\udfff x",
    "\u202e",
    "\ufeff",
    "\uffff",
    "a\x00b",
    "\r\n",
    "🙂" * 3,
    "\x1b[2J",
)
HUGE = (10**9, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), -(10**30), 1e308, -1e308)

LIMITS = (
    *("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "n_predict"),
)
MESSAGE = {"role": "user", "content": "Profit?"}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "description": "d"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
COMMON: dict[str, Any] = {"model": "tiny", "max_tokens": 2, "stop": ["x"], "user": "u", "seed": 1}
FULL: dict[str, dict[str, Any]] = {
    CHAT: {
        **COMMON,
        "messages": [{**MESSAGE, "name": "n"}, {"role": "system", "content": "Brief."}],
        "tools": [TOOL],
        "tool_choice": "auto",
        "response_format": FORMAT,
        "logit_bias": {"5": 1.0},
        "metadata": {"key": "value"},
        "unknown": "value",
    },
    "/v1/completions": {**COMMON, "prompt": ["A bond"], "suffix": None, "unknown": "value"},
    "/v1/responses": {
        "model": "tiny",
        "input": [MESSAGE],
        "instructions": "Brief.",
        "max_output_tokens": 2,
        "metadata": {"key": "value"},
        "text": {"format": {"type": "text"}},
        "user": "u",
    },
    "/completion": {
        **{"model": "tiny", "n_predict": 2, "stop": ["x"], "user": "u", "seed": 1},
        "prompt": ["A bond", 5],
        "logit_bias": {"5": 1.0, "bond": -1.0},
        "response_fields": ["content"],
        "unknown": "value",
    },
    "/generate": {"prompt": "A bond", "model_name": "tiny", "max_new_tokens": 2},
    "/tokenize": {"prompt": "A bond", "model": "tiny"},
    "/detokenize": {"tokens": [5], "model": "tiny"},
    "/v1/feedback": {"id": "chatcmpl-1", "corrected": "c", "tags": ["t"], "rating": "up"},
}
NUMBERS: dict[str, tuple[str, ...]] = {
    CHAT: (
        *("n", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p"),
        *("frequency_penalty", "presence_penalty", "repetition_penalty", "min_tokens", "seed"),
        "top_logprobs",
    ),
    "/v1/completions": ("n", "best_of", "logprobs", "max_tokens", "seed", "top_k"),
    "/v1/responses": ("max_output_tokens", "temperature", "top_p"),
    "/completion": ("n_predict", "n_probs", "repeat_penalty", "seed", "top_k"),
    "/generate": ("max_new_tokens", "temperature", "topk", "topp", "frequency_penalty"),
}


@pytest.fixture(scope="module")
def rated(tally_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with all routes that there are."""
    database = tmp_path_factory.mktemp("feedback") / "feedback.db"
    settings = ServerSettings(
        models={"tiny": tally_folder},
        feedback=f"sqlite:///{database}",
        allowed_origins=("http://page.example",),
    )
    with running(settings) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def http(rated: Running) -> Iterator[httpx2.Client]:  # type: ignore[override]
    with rated.client() as client:
        yield client


def with_text(value: Any, text: str) -> Iterator[Any]:
    """A body with another text in the place of each of its own, and of each name."""
    if isinstance(value, str):
        yield text
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from ([*value[:place], new, *value[place + 1 :]] for new in with_text(item, text))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from ({**value, name: new} for new in with_text(item, text))
            yield {**{k: v for k, v in value.items() if k != name}, text: item}


def send(http: httpx2.Client, path: str, body: Any) -> httpx2.Response:
    """Bodies that httpx would not write: lone surrogates, endless numbers."""
    headers = {"content-type": "application/json"}
    return http.post(path, content=json.dumps(body).encode(), headers=headers)


def check_plain(answer: httpx2.Response) -> None:
    """No browser takes it for a page, no header has what was sent, no failure is the server's."""
    assert answer.status_code < 500, (answer.request.content, answer.text)
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in ("application/json", "text/event-stream"), kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"[<>\"']", "".join(answer.headers.values()))
    assert answer.content.isascii() or kind == "application/json"
    if answer.status_code >= 400:
        check_envelope(answer, answer.status_code)
        assert "<" not in answer.text and "alert" not in answer.text


@pytest.mark.parametrize("path", FULL)
def test_no_text_in_any_field_becomes_a_page_or_a_failure(http: httpx2.Client, path: str) -> None:
    for text in (XSS[0], XSS[1], XSS[5], *ODD[:3]):
        for body in with_text(FULL[path], text):
            check_plain(send(http, path, body))


def test_no_prompt_becomes_a_page_or_a_failure(http: httpx2.Client) -> None:
    for text in (*XSS, *ODD):
        for path, field in ((CHAT, "content"), ("/v1/completions", "prompt")):
            message = [{"role": "user", "content": text}]
            asked = {"messages": message} if field == "content" else {"prompt": text}
            check_plain(send(http, path, {"model": "tiny", "max_tokens": 2, "stop": text, **asked}))


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/completion"])
def test_no_text_breaks_a_streams_events(http: httpx2.Client, path: str) -> None:
    for text in (XSS[0], XSS[5]):
        for body in with_text({**FULL[path], "stream": True}, text):
            answer = send(http, path, body)
            check_plain(answer)
            if answer.headers["content-type"].startswith("text/event-stream"):
                lines = answer.text.split("\n")
                assert all(re.match(r"(data|event): |:|$", line) for line in lines), lines


@pytest.mark.parametrize("path", NUMBERS)
def test_no_number_is_a_failure(http: httpx2.Client, path: str) -> None:
    for name in NUMBERS[path]:
        for number in HUGE:
            body = {**FULL[path], "response_format": None, name: number}
            if name in LIMITS and 0 < number < 2**63:
                continue  # allowed: the window slides
            check_plain(send(http, path, body))


BIASED = (CHAT, "/v1/completions", "/v1/responses", "/completion")


@pytest.mark.parametrize("path", BIASED)
@pytest.mark.parametrize("digits", [10, 309, 4300, 4301, 5000])
def test_no_id_of_many_digits_is_a_failure(http: httpx2.Client, path: str, digits: int) -> None:
    many = "9" * digits
    for given in (f'{{"{many}": 1}}', f"[[{many}, 1]]", f'[["{many}", {many}]]'):
        body = json.dumps({**FULL[path], "response_format": None, "logit_bias": "BIAS"})
        headers = {"content-type": "application/json"}
        answer = http.post(path, content=body.replace('"BIAS"', given), headers=headers)
        check_plain(answer)
        check_envelope(answer, 400)


def test_answers_of_every_kind_are_read_as_what_they_say(rated: Running) -> None:
    with rated.client() as http:
        page = {"origin": "http://page.example", "access-control-request-method": "POST"}
        for answer in (
            http.get("/health"),
            http.get("/metrics"),
            http.get("/docs"),
            http.get("/v1/none"),
            http.get("/health", headers={"host": "attacker.example"}),
            http.options(CHAT, headers=page),
            http.post(CHAT, content=b"x"),
        ):
            assert answer.headers["x-content-type-options"] == "nosniff", answer.request.url
    assert b"x-content-type-options: nosniff\r\n" in raw(rated, b"nothing\r\n\r\n")


def control_texts(tokenizer: Tokenizer) -> list[str]:
    texts = [tokenizer.bytes_of(i).decode(errors="replace") for i in tokenizer.control_ids]
    spelled = ["<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>", "<|im_end|>", "<s>"]
    return sorted({*spelled, *filter(None, texts)})


def test_no_field_makes_a_control_token(http: httpx2.Client, tally: LLM) -> None:
    tokenizer = tally.tokenizer
    for text in control_texts(tokenizer):
        plain = http.post("/tokenize", json={"prompt": text}).json()["tokens"]
        assert not set(plain) & set(tokenizer.control_ids), text
        assert http.post("/detokenize", json={"tokens": plain}).json()["prompt"] == text
        for messages in (
            [{"role": "user", "content": text}],
            [{"role": "system", "content": text}, MESSAGE],
            [MESSAGE, {"role": "assistant", "content": text}],
            [{"role": "user", "content": [{"type": "text", "text": text}]}],
        ):
            ids = http.post("/tokenize", json={"messages": messages}).json()["tokens"]
            clean = json.loads(json.dumps(messages).replace(json.dumps(text), '"Profit"'))
            other = http.post("/tokenize", json={"messages": clean}).json()["tokens"]
            found = [i for i in ids if i in tokenizer.control_ids]
            assert found == [i for i in other if i in tokenizer.control_ids], messages


@pytest.mark.parametrize("field", ["stop", "user", "tools", "metadata", "unknown"])
def test_a_control_tokens_spelling_beside_the_conversation_changes_nothing(
    http: httpx2.Client, field: str
) -> None:
    plain = chat.answer_of(http, max_tokens=20)["choices"]
    for text in ("<|endoftext|>", "<|user|>", "<|assistant|>"):
        values: dict[str, Any] = {
            "stop": [text],
            "tools": [{"type": "function", "function": {"name": text}}],
            "metadata": {text: text},
        }
        assert (
            chat.answer_of(http, max_tokens=20, **{field: values.get(field, text)})["choices"]
            == plain
        )


def test_a_schema_cannot_make_the_model_say_a_control_token(
    http: httpx2.Client, tally: LLM
) -> None:
    pytest.importorskip("llguidance")
    for text in ("<|endoftext|>", "<|user|>"):
        schema = {
            "type": "object",
            "properties": {"a": {"const": text}},
            "required": ["a"],
            "additionalProperties": False,
        }
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        asked = {"response_format": form, "max_tokens": 200, "ignore_eos": False}
        choice = chat.answer_of(http, logprobs=True, **asked)["choices"][0]
        assert json.loads(choice["message"]["content"])["a"] == text
        said = b"".join(bytes(entry["bytes"]) for entry in choice["logprobs"]["content"])
        assert said.decode().strip() == choice["message"]["content"]


HEAD = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"prompt": "a"}'


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 15\r\nContent-Length: 3\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: +15\r\n",
        b"Content-Length: 15, 15\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Content-Length : 15\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n",
    ],
)
def test_a_body_of_two_lengths_is_refused(served: Running, framing: bytes) -> None:
    """Else a proxy and this server might see different requests in the same bytes."""
    answer = raw(served, HEAD + framing + b"\r\n" + BODY)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert envelope_of(answer)["message"]
    assert answer.count(b"HTTP/1.1 ") == 1


def test_requests_that_are_sent_at_once_are_answered_in_order(served: Running) -> None:
    one = b"GET /v1/models/%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    names = [b"tiny", b"none", b"tiny"]
    answer = raw(
        served, *[one % (name, b"") for name in names], one % (b"tiny", b"Connection: close\r\n")
    )
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200", b"200"]


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET http://attacker.example/health HTTP/1.1\r\nHost: attacker.example\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: attacker.example\r\n",
        b"GET /health HTTP/1.0\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost.\r\n",
        b"GET /health HTTP/1.1\r\nHost: attacker.example:localhost\r\n",
    ],
)
def test_no_spelling_of_a_host_is_taken_for_ours(served: Running, request_line: bytes) -> None:
    answer = raw(served, request_line + b"Connection: close\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 ")), answer


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/tokenize"])
def test_what_is_nested_without_end_is_a_400(http: httpx2.Client, path: str) -> None:
    for body in (b'{"a":' * 100_000, b'{"messages":' + b"[" * 100_000, b'{"a":[' * 40 + b"]}" * 40):
        headers = {"content-type": "application/json"}
        check_envelope(http.post(path, content=body, headers=headers), 400)


def test_a_preflight_needs_no_key(keyed: Running) -> None:
    """Browsers send none; what follows does need one."""
    with keyed.client() as http:
        page = {"origin": keyed.url, "access-control-request-method": "POST"}
        assert http.options(CHAT, headers=page).status_code != 401


def test_an_answer_to_a_bad_key_says_nothing_of_models(keyed: Running) -> None:
    with keyed.client(headers={"authorization": "Bearer tf-x"}) as http:
        for name in ("tiny", "none"):
            check_envelope(http.post(CHAT, json={**SHORT, "model": name}), 401)
