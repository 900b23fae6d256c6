"""Which models there are."""

from __future__ import annotations

from fastapi import FastAPI

from tallyformer.server.models import Models
from tallyformer.server.schemas.errors import documented
from tallyformer.server.schemas.models import ModelCard, ModelList


def add_model_routes(app: FastAPI, models: Models, *, runs: bool) -> None:
    """`/v1/models` and `/v1/models/{name}`; `runs`: whether the server shows training runs too."""

    @app.get("/models", include_in_schema=False)
    @app.get("/v1/models", tags=["models"])
    async def list_models() -> ModelList:
        """All models, whether they are loaded yet or not."""
        return ModelList(data=[ModelCard.of(model) for model in models], runs=runs)

    @app.get("/v1/models/{name:path}", tags=["models"], responses=documented(404))
    async def get_model(name: str) -> ModelCard:
        """One model."""
        return ModelCard.of(models.named(name))
