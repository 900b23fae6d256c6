"""Is the server alive, and can it answer?"""

from __future__ import annotations

from fastapi import FastAPI

from tallyformer.server.api_error import unavailable
from tallyformer.server.drain import Drain
from tallyformer.server.models import Models
from tallyformer.server.rate_limits import RateLimits
from tallyformer.server.schemas.errors import documented

OPEN_PATHS = {"/health", "/ready"}


def add_health_routes(app: FastAPI, models: Models, drain: Drain, limits: RateLimits) -> None:
    """`/health` and `/ready`."""

    @app.head("/health", include_in_schema=False)
    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """The process is alive; it may still load models."""
        return {"status": "ok"}

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", tags=["operation"], responses=documented(503))
    async def ready() -> dict[str, str]:
        """Every model answers, and so does what counts limits; the server is not ending."""
        if drain.began:
            raise unavailable("The server is ending", code="shutting_down")
        if not models.ready:
            raise unavailable("Models are still being loaded", code="not_ready")
        await limits.check()
        return {"status": "ready"}
