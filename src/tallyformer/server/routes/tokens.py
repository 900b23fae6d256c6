"""`/tokenize` and `/detokenize`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from fastapi import Depends, FastAPI, Response

from tallyformer.server import sse
from tallyformer.server.api_error import ApiError
from tallyformer.server.chat_prompt import conversation_ids
from tallyformer.server.schemas.errors import documented
from tallyformer.server.schemas.tokens import (
    DetokenizedText,
    DetokenizeRequest,
    TokenizeRequest,
    Tokens,
)
from tallyformer.server.service import Service, named
from tallyformer.tokenizer.tokenizer import Tokenizer

_AT_ONCE = 1024
"""Ids that are written without a pause."""


def add_token_routes(app: FastAPI, service: Service) -> None:
    """`POST /tokenize`, `POST /detokenize`."""
    models, counted = service.models, [Depends(service.limits.count_beside)]

    @app.post(
        "/tokenize",
        tags=["tokens"],
        response_model=Tokens,
        responses=documented(404),
        dependencies=counted,
    )
    async def tokenize(body: TokenizeRequest, response: Response) -> Response:
        """The ids of a text, or of a conversation up to where its answer begins."""
        response.headers.update(named(body.ignored()))
        llm = (await models.answering(body.model)).llm.llm

        def encode() -> list[int]:
            if body.messages is not None:
                return conversation_ids(
                    llm.tokenizer,
                    body.messages,
                    begins=body.add_generation_prompt,
                    continues=body.continue_final_message,
                )
            text = body.prompt if body.content is None else body.content
            ids: list[int] = llm.tokenizer.encode(text)
            return ids

        def written() -> bytes:
            ids = encode()
            tokens = _written(llm.tokenizer, ids, with_pieces=body.with_pieces)
            rest = f',"count":{len(ids)},"max_model_len":{llm.context_length}'.encode()
            if body.return_token_strs:
                rest += b',"token_strs":[' + _texts(llm.tokenizer, ids) + b"]"
            return b'{"tokens":[' + tokens + b"]" + rest + b"}"

        sent = await asyncio.to_thread(written)
        return Response(sent, headers=dict(response.headers), media_type="application/json")

    @app.post("/detokenize", tags=["tokens"], responses=documented(404), dependencies=counted)
    async def detokenize(body: DetokenizeRequest, response: Response) -> DetokenizedText:
        """The text of ids; control tokens have none."""
        response.headers.update(named(body.ignored()))
        tokenizer = (await models.answering(body.model)).llm.llm.tokenizer
        if body.tokens and not 0 <= min(body.tokens) <= max(body.tokens) < tokenizer.vocab_size:
            raise ApiError(
                400, f"tokens: ids go from 0 to {tokenizer.vocab_size - 1}", param="tokens"
            )
        text = await asyncio.to_thread(tokenizer.decode, body.tokens)
        return DetokenizedText(prompt=text, content=text)


def _written(tokenizer: Tokenizer, ids: list[int], *, with_pieces: bool) -> bytes:
    """Ids as JSON, or objects with their texts."""
    return _in_parts(ids, functools.partial(_piece, tokenizer) if with_pieces else None)


def _texts(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    """Texts of ids as JSON; bytes that are not text by themselves are marked."""
    return _in_parts(ids, lambda i: tokenizer.bytes_of(i).decode("utf-8", errors="replace"))


def _in_parts(ids: list[int], written: Callable[[int], object] | None) -> bytes:
    """The elements of a list as JSON: each part is quick, so the server's loop runs between."""
    parts = (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))
    values = (part if written is None else [written(one) for one in part] for part in parts)
    return b",".join(sse.json_bytes(part)[1:-1] for part in values)


def _piece(tokenizer: Tokenizer, token_id: int) -> dict[str, object]:
    """A `TokenPiece`; pydantic's objects take long to make."""
    spelled = tokenizer.bytes_of(token_id)
    try:
        return {"id": token_id, "piece": spelled.decode("utf-8")}
    except UnicodeDecodeError:
        return {"id": token_id, "piece": list(spelled)}
