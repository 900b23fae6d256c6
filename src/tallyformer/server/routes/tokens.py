"""`/tokenize` and `/detokenize`."""

from __future__ import annotations

import asyncio

from fastapi import Depends, FastAPI, Response

from tallyformer.server.api_error import ApiError
from tallyformer.server.chat_prompt import conversation_ids
from tallyformer.server.schemas.errors import documented
from tallyformer.server.schemas.tokens import (
    DetokenizedText,
    DetokenizeRequest,
    TokenizeRequest,
    TokenPiece,
    Tokens,
)
from tallyformer.server.service import Service, named
from tallyformer.tokenizer.tokenizer import Tokenizer


def add_token_routes(app: FastAPI, service: Service) -> None:
    """`POST /tokenize`, `POST /detokenize`."""
    models, counted = service.models, [Depends(service.limits.count_beside)]

    @app.post("/tokenize", tags=["tokens"], responses=documented(404), dependencies=counted)
    async def tokenize(body: TokenizeRequest, response: Response) -> Tokens:
        """The ids of a text, or of a conversation up to where its answer begins."""
        response.headers.update(named(body.ignored()))
        llm = (await models.answering(body.model)).llm.llm

        def encode() -> list[int]:
            if body.messages is not None:
                return conversation_ids(llm.tokenizer, body.messages)
            text = body.prompt if body.content is None else body.content
            ids: list[int] = llm.tokenizer.encode(text)
            return ids

        ids = await asyncio.to_thread(encode)
        tokens = [_piece(llm.tokenizer, one) for one in ids] if body.with_pieces else ids
        return Tokens(tokens=tokens, count=len(ids), max_model_len=llm.context_length)

    @app.post("/detokenize", tags=["tokens"], responses=documented(404), dependencies=counted)
    async def detokenize(body: DetokenizeRequest, response: Response) -> DetokenizedText:
        """The text of ids; control tokens have none."""
        response.headers.update(named(body.ignored()))
        tokenizer = (await models.answering(body.model)).llm.llm.tokenizer
        if not all(0 <= token < tokenizer.vocab_size for token in body.tokens):
            raise ApiError(
                400, f"tokens: ids go from 0 to {tokenizer.vocab_size - 1}", param="tokens"
            )
        text = tokenizer.decode(body.tokens)
        return DetokenizedText(prompt=text, content=text)


def _piece(tokenizer: Tokenizer, token_id: int) -> TokenPiece:
    spelled = tokenizer.bytes_of(token_id)
    try:
        return TokenPiece(id=token_id, piece=spelled.decode("utf-8"))
    except UnicodeDecodeError:
        return TokenPiece(id=token_id, piece=list(spelled))
