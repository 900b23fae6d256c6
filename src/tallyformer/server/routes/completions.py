"""`/v1/completions`."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response

from tallyformer.inference.grammar import MakeMask
from tallyformer.server.answers import AnswerHead, CompletionShape
from tallyformer.server.api_error import ApiError
from tallyformer.server.chat_prompt import too_long
from tallyformer.server.formats import mask_of
from tallyformer.server.generation import WantedAnswers
from tallyformer.server.models import ServedModel
from tallyformer.server.routes.chat import LONG_TEXT
from tallyformer.server.schemas.completions import CompletionRequest
from tallyformer.server.schemas.errors import STREAMED, documented
from tallyformer.server.service import Ask, Service
from tallyformer.server.token_logprobs import TextLogprobs
from tallyformer.tokenizer.tokenizer import Tokenizer

MOST_ANSWERS = 256
"""Answers of one request: prompts times n."""


def add_completion_routes(app: FastAPI, service: Service) -> None:
    """`POST /v1/completions`."""

    @app.post("/v1/completions", tags=["generation"], responses={**documented(404), **STREAMED})
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Texts continued, whole or as a stream."""
        model = await service.models.answering(body.model)
        ids = await completion_ids(model, body)
        mask = await mask_of(model, body.answer_form)
        return await service.respond(request, _ask(model, body, ids, mask))


async def completion_ids(model: ServedModel, body: CompletionRequest) -> list[list[int]]:
    """Ids of all prompts.

    Raises:
        ApiError: 429, no more may wait; 400, there are too many, or one is too long.
    """
    model.admission.check(len(body.prompt) * body.made)
    if len(body.prompt) * body.made > MOST_ANSWERS:
        raise ApiError(
            400, f"prompt: with n at most {MOST_ANSWERS} answers a request", param="prompt"
        )
    long = _length(body.prompt) > LONG_TEXT
    return await asyncio.to_thread(_ids, model, body) if long else _ids(model, body)


def completion_wanted(
    model: ServedModel, body: CompletionRequest, ids: list[int], mask: MakeMask | None
) -> WantedAnswers:
    """The answers to one prompt that a request wants.

    Raises:
        InvalidRequestError: a setting is out of range.
    """
    llm = model.llm.llm
    most = body.max_tokens
    if most is None:
        most = max(1, llm.context_length - len(ids))
    scored = body.logprobs if body.echo else None
    params = body.params(
        llm.default_params,
        max_tokens=most,
        n=body.made,
        token_mask=mask,
        logprobs=0 if body.made > body.n and body.logprobs is None else body.logprobs,
        # An answer without tokens is one that is scored.
        prompt_logprobs=0 if most == 0 and scored is None else scored,
    )
    return WantedAnswers(prompt_ids=ids, params=params)


def _ask(
    model: ServedModel, body: CompletionRequest, prompts: list[list[int]], mask: MakeMask | None
) -> Ask:
    """What a completion request wants.

    Raises:
        InvalidRequestError: a setting is out of range.
    """
    tokenizer = model.llm.llm.tokenizer
    given = [text for text in body.prompt for _ in range(body.n)]
    head = AnswerHead(kind="text", model=model.name, fingerprint=model.fingerprint)
    shape = CompletionShape(
        head,
        echo=[_text(tokenizer, prompt) if body.echo else "" for prompt in given],
        usage=body.usage_in_stream,
        prompt_tokens=sum(map(len, prompts)) if body.usage_in_chunks else None,
        logprobs=None if body.logprobs is None else TextLogprobs(tokenizer, len(given)),
        prompts=[ids for ids in prompts for _ in range(body.n)],
    )
    return Ask(
        model=model,
        wanted=[completion_wanted(model, body, ids, mask) for ids in prompts],
        shape=shape,
        stream=body.stream,
        rejoin=body.may_rejoin,
        ignored=body.ignored(),
        prompt_tokens=sum(map(len, prompts)),
        kept=(body.n, body.made),
    )


def _text(tokenizer: Tokenizer, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else tokenizer.decode(prompt)


def _length(prompts: list[Any]) -> int:
    """Ids, texts in a row with them, and characters of all texts."""
    length = sum(map(len, prompts))
    if length > LONG_TEXT:  # To look at each of half a million ids takes a while.
        return length
    rows = (prompt for prompt in prompts if isinstance(prompt, list))
    return length + sum(len(part) for row in rows for part in row if isinstance(part, str))


def _ids(model: ServedModel, body: CompletionRequest) -> list[list[int]]:
    """Ids of all prompts, each one that the model can read."""
    llm = model.llm.llm
    prompts = []
    for given in body.prompt:
        # Ids are counted first: to look at each of half a million takes a while.
        if isinstance(given, list) and len(given) > llm.context_length:
            raise too_long(len(given), llm.context_length, "prompt")
        if isinstance(given, list):
            given = _joined(llm.tokenizer, given)
        ids = llm.asked(given, llm.default_params)[0]
        if len(ids) > llm.context_length:
            raise too_long(len(ids), llm.context_length, "prompt")
        prompts.append(ids)
    return prompts


def _joined(tokenizer: Tokenizer, parts: list[int | str]) -> list[int]:
    """Ids of ids and texts in a row."""
    if not any(isinstance(part, str) for part in parts):
        return parts  # type: ignore[return-value]
    return [
        i for part in parts for i in (tokenizer.encode(part) if isinstance(part, str) else [part])
    ]
