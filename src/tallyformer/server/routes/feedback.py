"""`/v1/feedback`: answers are rated, and ratings deleted."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request, Response

from tallyformer.server.api_error import ApiError
from tallyformer.server.feedback.exchanges import Exchange, Exchanges
from tallyformer.server.feedback.store import FeedbackStore, RatedAnswer
from tallyformer.server.rate_limits import RateLimits
from tallyformer.server.schemas.errors import documented
from tallyformer.server.schemas.feedback import DeletedFeedback, Feedback, FeedbackRequest
from tallyformer.server.service import named
from tallyformer.server.shared_answers import SharedAnswers


def add_feedback_routes(
    app: FastAPI,
    exchanges: Exchanges,
    shared: SharedAnswers | None,
    store: FeedbackStore,
    limits: RateLimits,
) -> None:
    """`POST` and `DELETE /v1/feedback`, `DELETE /v1/feedback/{answer_id}`."""
    counted = [Depends(limits.count_beside)]

    @app.post("/v1/feedback", tags=["feedback"], responses=documented(404), dependencies=counted)
    async def rate(body: FeedbackRequest, request: Request, response: Response) -> Feedback:
        """Rate one of the newest answers, or rate one again; it is kept with what it answered."""
        owner = request.state.owner
        response.headers.update(named(body.ignored()))
        rated = await asyncio.to_thread(store.get, body.id, body.choice, owner)
        exchange = exchanges.get(body.id, owner)
        if rated is None and exchange is None and shared is not None:
            exchange = await shared.exchange(body.id, owner)
        rated = _rated(rated or _from_memory(exchange, body, owner), body)
        await asyncio.to_thread(store.save, rated)
        return Feedback(
            id=body.id,
            choice=body.choice,
            rating=body.rating,
            corrected=body.corrected,
            tags=body.tags,
        )

    @app.delete("/v1/feedback/{answer_id}", tags=["feedback"], dependencies=counted)
    async def delete_one(answer_id: str, request: Request) -> DeletedFeedback:
        """Delete a rated answer of this key."""
        owner = request.state.owner
        exchanges.forget(owner=owner, answer_id=answer_id)
        if shared is not None:
            await shared.forget(owner=owner, answer_id=answer_id)
        return DeletedFeedback(
            deleted=await asyncio.to_thread(store.delete, owner=owner, answer_id=answer_id)
        )

    @app.delete("/v1/feedback", tags=["feedback"], dependencies=counted)
    async def delete_all(
        request: Request, user: Annotated[str, Query(min_length=1, max_length=256)]
    ) -> DeletedFeedback:
        """Delete all rated answers of a user of this key."""
        owner = request.state.owner
        exchanges.forget(owner=owner, user=user)
        if shared is not None:
            await shared.forget(owner=owner, user=user)
        return DeletedFeedback(
            deleted=await asyncio.to_thread(store.delete, owner=owner, user=user)
        )


def _from_memory(exchange: Exchange | None, body: FeedbackRequest, owner: str) -> RatedAnswer:
    if exchange is None or body.choice >= len(exchange.answers):
        raise ApiError(
            404, "id: there is no such answer, or it is forgotten. Rate it sooner", param="id"
        )
    return RatedAnswer(
        answer_id=body.id,
        choice=body.choice,
        owner=owner,
        user=exchange.user,
        model=exchange.model,
        messages=exchange.messages,
        answer=exchange.answers[body.choice],
        rating=None,
        corrected=None,
        tags=[],
    )


def _rated(before: RatedAnswer, body: FeedbackRequest) -> RatedAnswer:
    kept = {k: v for k, v in vars(before).items() if k != "rated_at"}
    said = {"rating": body.rating, "corrected": body.corrected, "tags": body.tags}
    return RatedAnswer(**{**kept, **said})
