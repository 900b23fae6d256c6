"""open-webui's way of calling, as its router for OpenAI's API sends it and reads the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from .conftest import KEY, Running

HEADERS = {
    "Authorization": f"Bearer {KEY}",
    "HTTP-Referer": "https://openwebui.com/",
    "X-Title": "Open WebUI",
    "X-OpenWebUI-User-Name": "Ann%20Lee",
    "X-OpenWebUI-User-Role": "admin",
}
CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Profit?", "cache_control": {"type": "ephemeral"}}
            ],
        },
    ],
    "temperature": 0.8,
    "max_tokens": 12,
    "seed": 3,
    "reasoning": {"effort": "low"},
}


@pytest.fixture
def http(keyed: Running) -> Iterator[httpx2.Client]:
    with keyed.client(headers=HEADERS) as client:
        yield client


def data_lines(text: str) -> list[str]:
    """What it reads of a stream: lines that begin with `data: `, whatever stands between them."""
    return [line[6:] for line in text.split("\n") if line.startswith("data: ")]


def test_it_lists_the_models(http: httpx2.Client) -> None:
    listed = http.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["tiny"]


def test_a_chat_streams_with_usage_and_says_what_the_whole_answer_says(http: httpx2.Client) -> None:
    streamed = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    answer = http.post(
        "/v1/chat/completions",
        content=json.dumps(streamed),
        headers={"Content-Type": "application/json"},
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = data_lines(answer.text)
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    deltas = [c["delta"].get("content") or "" for event in events for c in event["choices"]]
    whole = http.post("/v1/chat/completions", json={**CHAT, "stream": False}).json()
    assert "".join(deltas) == whole["choices"][0]["message"]["content"]
    usages = [event["usage"] for event in events if event["usage"]]
    assert usages == [whole["usage"]]


def test_its_requests_for_a_title_are_answered(http: httpx2.Client) -> None:
    asked = [{"role": "user", "content": "Title?"}]
    body = {"model": "tiny", "messages": asked, "stream": False, "max_completion_tokens": 9}
    assert http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]


def test_an_error_before_a_stream_is_json_and_no_stream(http: httpx2.Client) -> None:
    answer = http.post("/v1/chat/completions", json={**CHAT, "model": "none", "stream": True})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["message"]
