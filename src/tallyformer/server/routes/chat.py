"""`/v1/chat/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response

from tallyformer.inference.grammar import MakeMask
from tallyformer.server.answers import AnswerHead, CompletionShape
from tallyformer.server.chat_prompt import ChatPrompt, GivenMessage, chat_prompt, in_turn
from tallyformer.server.formats import mask_of
from tallyformer.server.generation import WantedAnswers
from tallyformer.server.models import ServedModel
from tallyformer.server.schemas.chat import ChatRequest
from tallyformer.server.schemas.errors import STREAMED, documented
from tallyformer.server.schemas.sampling import SamplingFields
from tallyformer.server.service import Ask, Service
from tallyformer.server.token_logprobs import ChatLogprobs

LONG_TEXT = 20_000
"""Characters from which a text is encoded in another thread, so that streams do not wait for it."""


def add_chat_routes(app: FastAPI, service: Service) -> None:
    """`POST /v1/chat/completions`."""

    @app.post("/chat/completions", include_in_schema=False)
    @app.post(
        "/v1/chat/completions", tags=["generation"], responses={**documented(404), **STREAMED}
    )
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """The assistant's next message, whole or as a stream."""
        model = await service.models.answering(body.model)
        model.admission.check(body.n)
        prompt = await read_conversation(model, body.messages, body.most_tokens)
        mask = await mask_of(model, body.answer_form)
        return await service.respond(request, _ask(model, body, prompt, mask))


async def read_conversation(
    model: ServedModel,
    messages: Sequence[GivenMessage],
    most_tokens: int | None,
    *,
    field: str = "messages",
) -> ChatPrompt:
    """What the model sees of a conversation, which stands in this field of the request.

    Raises:
        ApiError: 400, as `chat_prompt`.
    """
    llm = model.llm.llm

    def make() -> ChatPrompt:
        return chat_prompt(
            llm.tokenizer,
            messages,
            context=llm.context_length,
            most_tokens=most_tokens,
            field=field,
        )

    long = sum(len(message.content) for message in messages) > LONG_TEXT
    return await asyncio.to_thread(make) if long else make()


def chat_wanted(
    model: ServedModel,
    body: SamplingFields,
    prompt: ChatPrompt,
    most_tokens: int | None,
    **more: Any,
) -> WantedAnswers:
    """The answers that a request wants; by default as long as there is room.

    Raises:
        InvalidRequestError: a setting is out of range.
    """
    llm = model.llm.llm
    most = max(1, llm.context_length - len(prompt.ids)) if most_tokens is None else most_tokens
    params = body.params(llm.default_params, max_tokens=most, n=body.n, **more)
    return WantedAnswers(
        prompt_ids=prompt.ids, params=llm.chat_params(params), chat=not prompt.continued
    )


def _ask(model: ServedModel, body: ChatRequest, prompt: ChatPrompt, mask: MakeMask | None) -> Ask:
    head = AnswerHead(kind="chat", model=model.name, fingerprint=model.fingerprint)
    alternatives = (body.top_logprobs or 0) if body.logprobs else None
    shape = CompletionShape(
        head,
        echo=[""] * body.n,
        usage=body.usage_in_stream,
        prompt_tokens=len(prompt.ids) if body.usage_in_chunks else None,
        logprobs=ChatLogprobs(model.llm.llm.tokenizer, from_start=not prompt.continued)
        if body.logprobs
        else None,
    )
    wanted = chat_wanted(
        model, body, prompt, body.most_tokens, logprobs=alternatives, token_mask=mask
    )
    return Ask(
        model=model,
        wanted=[wanted],
        shape=shape,
        stream=body.stream,
        rejoin=body.may_rejoin,
        asked=None if prompt.continued else in_turn(body.messages),
        user=body.user,
        ignored=body.ignored(),
        prompt_tokens=len(prompt.ids),
        left_out=prompt.left_out,
    )
