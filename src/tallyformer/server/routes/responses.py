"""`/v1/responses`."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from tallyformer.inference.grammar import MakeMask
from tallyformer.server.answers import AnswerHead
from tallyformer.server.chat_prompt import ChatPrompt, in_turn, too_long
from tallyformer.server.formats import mask_of
from tallyformer.server.models import ServedModel
from tallyformer.server.response_shape import ResponseShape
from tallyformer.server.routes.chat import chat_wanted, read_conversation
from tallyformer.server.schemas.errors import STREAMED, documented
from tallyformer.server.schemas.responses import ResponsesRequest
from tallyformer.server.service import Ask, Service
from tallyformer.server.token_logprobs import ChatLogprobs


def add_response_routes(app: FastAPI, service: Service) -> None:
    """`POST /v1/responses`."""

    @app.post("/responses", include_in_schema=False)
    @app.post("/v1/responses", tags=["generation"], responses={**documented(404), **STREAMED})
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        """An answer to a text or conversation; nothing is kept."""
        model = await service.models.answering(body.model)
        model.admission.check(1)
        prompt = await read_conversation(model, body.messages, body.most_tokens, field="input")
        context = model.llm.llm.context_length
        if prompt.left_out and body.truncation == "disabled":
            raise too_long(len(prompt.ids) + prompt.left_out, context, "input")
        mask = await mask_of(model, body.answer_form)
        return await service.respond(request, _ask(model, body, prompt, mask))


def _ask(
    model: ServedModel, body: ResponsesRequest, prompt: ChatPrompt, mask: MakeMask | None
) -> Ask:
    wanted = chat_wanted(
        model, body, prompt, body.most_tokens, logprobs=body.logprobs, token_mask=mask
    )
    scores = None
    if body.logprobs is not None:
        scores = ChatLogprobs(model.llm.llm.tokenizer, from_start=not prompt.continued)
    head = AnswerHead(kind="chat", model=model.name, fingerprint=model.fingerprint)
    return Ask(
        model=model,
        wanted=[wanted],
        shape=ResponseShape(head, body, wanted.params, logprobs=scores),
        stream=body.stream,
        rejoin=body.may_rejoin,
        asked=None if prompt.continued else in_turn(body.messages),
        user=body.user,
        ignored=body.ignored(),
        prompt_tokens=len(prompt.ids),
        left_out=prompt.left_out,
    )
