"""`/v1/chat/completions`."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request, Response

from tallyformer.server.chat_prompt import ChatPrompt, chat_prompt
from tallyformer.server.generation import Wanted
from tallyformer.server.models import ServedModel
from tallyformer.server.schemas.chat import ChatRequest
from tallyformer.server.schemas.errors import documented
from tallyformer.server.service import Ask, Service

LONG_TEXT = 20_000
"""Characters from which a text is encoded in another thread, so that streams do not wait for it."""


def add_chat_routes(app: FastAPI, service: Service) -> None:
    """`POST /v1/chat/completions`."""

    @app.post("/v1/chat/completions", tags=["generation"], responses=documented(404))
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """The assistant's next message, whole or as a stream."""
        model = service.models.answering(body.model)
        prompt = await _prompt(model, body)
        return await service.respond(request, chat_ask(model, body, prompt))


def chat_ask(model: ServedModel, body: ChatRequest, prompt: ChatPrompt) -> Ask:
    """What a chat request wants.

    Raises:
        InvalidRequestError: a setting is out of range.
    """
    llm = model.llm.llm
    room = max(1, llm.context_length - len(prompt.ids))
    most = room if body.most_tokens is None else body.most_tokens
    wanted = [
        Wanted(
            prompt_ids=prompt.ids,
            params=llm.chat_params(body.params(llm.default_params, max_tokens=most, choice=choice)),
            chat=not prompt.continued,
        )
        for choice in range(body.n)
    ]
    return Ask(
        kind="chat",
        body=body,
        model=model,
        wanted=wanted,
        prompt_tokens=len(prompt.ids),
        left_out=prompt.left_out,
    )


async def _prompt(model: ServedModel, body: ChatRequest) -> ChatPrompt:
    llm = model.llm.llm

    def make() -> ChatPrompt:
        return chat_prompt(
            llm.tokenizer,
            body.messages,
            context=llm.context_length,
            most_tokens=body.most_tokens,
        )

    long = sum(len(message.content) for message in body.messages) > LONG_TEXT
    return await asyncio.to_thread(make) if long else make()
