"""Answers have the shapes that OpenAI's own client declares: nothing is missing, null or of another
kind where it must not be. The client itself takes whatever comes, so its classes are strict here.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from openai.types import Completion, CompletionChoice, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

QUESTION = [{"role": "user", "content": "What is a bond?"}]


def check(shape: Any, body: bytes | str) -> None:
    TypeAdapter(shape).validate_json(body, strict=True)


def streamed(http: httpx2.Client, path: str, body: dict[str, Any]) -> list[str]:
    answer = http.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [line for line in lines if line != "[DONE]"]


@pytest.mark.parametrize(
    "fields", [{}, {"n": 2}, {"logprobs": True, "top_logprobs": 2}, {"stop": ["e", "a"]}]
)
def test_of_chats(http: httpx2.Client, fields: dict[str, Any]) -> None:
    body = {"messages": QUESTION, "max_tokens": 6, **fields}
    check(ChatCompletion, http.post("/v1/chat/completions", json=body).content)
    with_usage = {**body, "stream_options": {"include_usage": True}}
    for asked in (body, with_usage):
        for chunk in streamed(http, "/v1/chat/completions", asked):
            check(ChatCompletionChunk, chunk)


@pytest.mark.parametrize("fields", [{}, {"n": 2, "best_of": 3}, {"logprobs": 2}, {"max_tokens": 0}])
def test_of_completions(http: httpx2.Client, fields: dict[str, Any]) -> None:
    body = {"prompt": ["A bond", "Profit"], "max_tokens": 6, **fields}
    check(Completion, http.post("/v1/completions", json=body).content)
    if "best_of" in fields:
        return
    for chunk in map(json.loads, streamed(http, "/v1/completions", body)):
        # The class is that of whole answers too: a chunk that is not the last has no reason.
        for choice in chunk["choices"]:
            assert choice["finish_reason"] in (None, "length", "stop")
            check(CompletionChoice, json.dumps({**choice, "finish_reason": "stop"}))
        check(Completion, json.dumps({**chunk, "choices": []}))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"instructions": "Be brief.", "metadata": {"a": "b"}, "user": "me", "top_p": 0},
        {"text": {"format": {"type": "json_object"}}, "truncation": "auto"},
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"const": "a"}}}},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    ],
)
def test_of_responses(http: httpx2.Client, fields: dict[str, Any]) -> None:
    body = {"input": "Gain?", "max_output_tokens": 6, **fields}
    whole = http.post("/v1/responses", json=body)
    check(Response, whole.content)
    assert all(whole.json()[name] == value for name, value in fields.items() if name == "top_p")
    for event in streamed(http, "/v1/responses", body):
        check(ResponseStreamEvent, event)


def test_of_models(http: httpx2.Client) -> None:
    check(Model, http.get("/v1/models/tiny").content)
    for model in http.get("/v1/models").json()["data"]:
        check(Model, json.dumps(model))
