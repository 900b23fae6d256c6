"""`/welcome` and `/generate`, as the earlier system of this name had them."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from fastapi import FastAPI, Request, Response

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.outputs import Output
from tallyformer.server.chat_prompt import too_long
from tallyformer.server.generation import WantedAnswers
from tallyformer.server.metrics import AnswerTimes
from tallyformer.server.models import ServedModel
from tallyformer.server.routes.chat import LONG_TEXT
from tallyformer.server.schemas.earlier import (
    Generated,
    GenerateMetrics,
    GenerateRequest,
    Welcome,
)
from tallyformer.server.schemas.errors import documented
from tallyformer.server.schemas.request import renamed
from tallyformer.server.service import Service, named

ANSWERING = "sft"
"""The model that was fine-tuned on questions: a prompt is one there, and a text elsewhere."""
_NAMES = {"topk": "top_k", "topp": "top_p"}
_SETTINGS = ("temperature", "topk", "topp", "frequency_penalty", "presence_penalty", "mode")


def add_earlier_routes(app: FastAPI, service: Service) -> None:
    """`GET /welcome`, `POST /generate`."""

    @app.get("/welcome", tags=["earlier"])
    async def welcome() -> Welcome:
        """What the first model is."""
        return _welcome(await service.models.answering(None))

    @app.post("/generate", tags=["earlier"], responses=documented(404))
    async def generate(body: GenerateRequest, request: Request, response: Response) -> Generated:
        """A text continued; the model `sft` answers it."""
        model = await service.models.answering(body.model_name, "model_name")
        long = len(body.prompt) > LONG_TEXT
        wanted = await asyncio.to_thread(_wanted, model, body) if long else _wanted(model, body)
        output, times, limits = await service.one_answer(request, model, wanted)
        response.headers.update({**limits, **named(body.ignored())})
        metrics = _metrics(output, times) if body.return_metrics else None
        return Generated(generated_text=output.text, metrics=metrics)


def _wanted(model: ServedModel, body: GenerateRequest) -> WantedAnswers:
    llm = model.llm.llm
    chat = model.name == ANSWERING
    if chat:
        question = [{"role": "user", "content": body.prompt}]
        ids = llm.tokenizer.encode_chat(question, add_generation_prompt=True)
    else:
        ids = llm.asked(body.prompt, llm.default_params)[0]
    if len(ids) >= llm.context_length:
        raise too_long(len(ids), llm.context_length, "prompt")
    given: dict[str, Any] = {
        _NAMES.get(name, name): value
        for name in _SETTINGS
        if (value := getattr(body, name)) is not None
    }
    most = body.max_new_tokens or llm.context_length - len(ids)
    try:
        params = dataclasses.replace(llm.default_params, **given, max_tokens=most)
    except InvalidRequestError as error:
        raise renamed(error, {name: earlier for earlier, name in _NAMES.items()}) from None
    return WantedAnswers(
        prompt_ids=ids, params=llm.chat_params(params) if chat else params, chat=chat
    )


def _metrics(output: Output, times: AnswerTimes) -> GenerateMetrics:
    prompt, generated = len(output.prompt_token_ids), len(output.token_ids)
    seconds = max(times.seconds, 1e-9)
    return GenerateMetrics(
        prompt_tokens=prompt,
        generated_tokens=generated,
        total_time_sec=round(seconds, 6),
        generated_tokens_per_sec=round(generated / seconds, 3),
        total_tokens_per_sec=round((prompt + generated) / seconds, 3),
        ttft_ms=round(times.first_seconds * 1000, 3),
    )


def _welcome(model: ServedModel) -> Welcome:
    sizes = model.sizes
    assert sizes is not None, "a ready model has sizes"
    return Welcome(
        name=model.name,
        size=f"{sizes.parameters / 1e6:.1f}M",
        context=model.llm.llm.context_length,
        layers=sizes.layers,
        heads=sizes.heads,
        hidden_size=sizes.hidden,
    )
