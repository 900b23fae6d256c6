"""`/v1/generations/{id}`: a stream is joined again, or stopped."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from tallyformer.server.api_error import ApiError
from tallyformer.server.schemas.errors import STREAMED, documented
from tallyformer.server.service import Service

LAST_EVENT = "last-event-id"


def add_generation_routes(app: FastAPI, service: Service) -> None:
    """`GET` and `DELETE /v1/generations/{answer_id}`."""

    @app.get(
        "/v1/generations/{answer_id}",
        tags=["generation"],
        responses={**documented(404), **STREAMED},
    )
    async def rejoin(answer_id: str, request: Request) -> Response:
        """The events behind that in the header Last-Event-ID, and those that follow.

        Only for streams that were asked for with `"stream_options": {"rejoin": true}`.
        """
        first = _behind(request.headers.get(LAST_EVENT))
        return await service.rejoin(request, answer_id, first)

    @app.delete(
        "/v1/generations/{answer_id}",
        tags=["generation"],
        status_code=204,
        responses=documented(404),
    )
    async def stop(answer_id: str, request: Request) -> Response:
        """End the answer, if it still runs, and forget it."""
        await service.stop(request, answer_id)
        return Response(status_code=204)


def _behind(last: str | None) -> int:
    """The number of the first event that is wanted."""
    if not last:
        return 0
    if not (last.isascii() and last.isdecimal() and len(last) < 10):
        raise ApiError(400, f"{LAST_EVENT}: it must be an event's id, an integer")
    return int(last) + 1
