"""The paths of llama.cpp's and vLLM's servers that their clients use besides OpenAI's."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Depends, FastAPI, Request, Response

from tallyformer import __version__
from tallyformer.server.chat_prompt import conversation_ids
from tallyformer.server.formats import mask_of
from tallyformer.server.models import Models, ServedModel
from tallyformer.server.native_shape import NativeShape
from tallyformer.server.routes.chat import LONG_TEXT
from tallyformer.server.routes.completions import completion_ids, completion_wanted
from tallyformer.server.schemas.errors import STREAMED, documented
from tallyformer.server.schemas.native import (
    NativeCompletionRequest,
    TemplatePrompt,
    TemplateRequest,
)
from tallyformer.server.service import Ask, Service, named


def add_native_routes(app: FastAPI, service: Service) -> None:
    """`POST /completion`, `/apply-template`; `GET /props`, `/slots`, `/version`."""
    models: Models = service.models
    counted = [Depends(service.limits.count_beside)]

    @app.post("/completions", include_in_schema=False)
    @app.post("/completion", tags=["llama.cpp"], responses={**documented(404), **STREAMED})
    async def completion(body: NativeCompletionRequest, request: Request) -> Response:
        """Texts continued, with the fields and answers of llama.cpp's server."""
        model = await models.answering(body.model)
        prompts = await completion_ids(model, body)
        mask = await mask_of(model, body.answer_form)
        body = await _with_ids(model, body)
        wanted = [completion_wanted(model, body, ids, mask) for ids in prompts]
        shape = NativeShape(
            model.name,
            model.llm.llm.tokenizer,
            prompts,
            wanted[0].params,
            single=len(prompts) == 1,
            return_tokens=body.return_tokens,
            fields=body.response_fields,
        )
        ask = Ask(
            model=model,
            wanted=wanted,
            shape=shape,
            stream=body.stream,
            rejoin=body.may_rejoin,
            ignored=body.ignored(),
            prompt_tokens=sum(map(len, prompts)),
        )
        return await service.respond(request, ask)

    @app.post(
        "/apply-template", tags=["llama.cpp"], responses=documented(404), dependencies=counted
    )
    async def apply_template(body: TemplateRequest, response: Response) -> TemplatePrompt:
        """The text that a model reads of a conversation."""
        response.headers.update(named(body.ignored()))
        tokenizer = (await models.answering(body.model)).llm.llm.tokenizer

        def written() -> str:
            ids = conversation_ids(
                tokenizer,
                body.messages,
                begins=body.add_generation_prompt,
                continues=body.continue_final_message,
            )
            return str(tokenizer.decode(ids, skip_control=False))

        return TemplatePrompt(prompt=await asyncio.to_thread(written))

    @app.get("/props", tags=["llama.cpp"])
    async def props() -> dict[str, Any]:
        """What the first model is."""
        return _props(await models.answering(None))

    @app.get("/version", tags=["vLLM"])
    async def version() -> dict[str, str]:
        """The server's version."""
        return {"version": __version__}

    @app.get("/slots", tags=["llama.cpp"])
    async def slots() -> list[dict[str, Any]]:
        """The first model's slots; which one an answer has says nothing, so they fill from 0."""
        model = await models.answering(None)
        context, running = model.llm.llm.context_length, model.llm.running
        return [
            {"id": slot, "n_ctx": context, "is_processing": slot < running}
            for slot in range(model.llm.slots)
        ]


async def _with_ids(model: ServedModel, body: NativeCompletionRequest) -> NativeCompletionRequest:
    """The same request, whose `logit_bias` names ids alone.

    Raises:
        InvalidRequestError: its texts have too many tokens.
    """
    tokenizer = model.llm.llm.tokenizer
    if body.biased_characters > LONG_TEXT:
        return await asyncio.to_thread(body.with_ids, tokenizer)
    return body.with_ids(tokenizer)


def _props(model: ServedModel) -> dict[str, Any]:
    llm = model.llm.llm
    return {
        "default_generation_settings": {"n_ctx": llm.context_length},
        "total_slots": model.llm.slots,
        "model_alias": model.name,
        "chat_template": llm.tokenizer.chat_template(),
        "modalities": {"vision": False, "audio": False},
        "build_info": f"tallyformer {__version__}",
    }
