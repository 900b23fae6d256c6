"""No long text is encoded in the server's loop, where all streams would wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx2
import pytest

from tallyformer.server.routes.chat import LONG_TEXT
from tallyformer.tokenizer.tokenizer import Tokenizer

TEXT = "A bond pays. " * (LONG_TEXT // 8)
LINES = [f"{start} {TEXT[start : start + 200]}" for start in range(0, len(TEXT), 200)]
MESSAGES = [{"role": "user", "content": TEXT}]
ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/responses", {"input": TEXT}),
    ("/v1/responses", {"input": MESSAGES, "instructions": TEXT}),
    ("/v1/completions", {"prompt": TEXT}),
    ("/v1/completions", {"prompt": LINES}),
    ("/completion", {"prompt": TEXT}),
    ("/completion", {"prompt": [5, TEXT]}),
    ("/completion", {"prompt": [["A", 5], [TEXT, 5]]}),
    ("/completion", {"prompt": "A", "logit_bias": {TEXT: 1}}),
    ("/completion", {"prompt": "A", "logit_bias": [[TEXT, False], [5, 1]]}),
    ("/completion", {"prompt": "A", "logit_bias": dict.fromkeys(LINES, 1)}),
    ("/generate", {"prompt": TEXT, "model_name": "tiny"}),
    ("/tokenize", {"prompt": TEXT}),
    ("/tokenize", {"messages": MESSAGES}),
    ("/apply-template", {"messages": MESSAGES}),
)


@pytest.mark.parametrize(("path", "body"), ASKED)
def test_no_long_text_is_encoded_in_the_loop(
    http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    in_loop = beside = 0
    encode = Tokenizer.encode

    def counted(tokenizer: Tokenizer, text: str) -> list[int]:
        nonlocal in_loop, beside
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            in_loop += len(text)
            return encode(tokenizer, text)
        beside += len(text)
        return encode(tokenizer, text)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    assert http.post(path, json={**body, "max_tokens": 1}).status_code in (200, 400)
    assert in_loop <= LONG_TEXT and in_loop + beside
