"""The list of models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from tallyformer.server.models import ModelState, ServedModel


class ModelCard(BaseModel):
    """One model, in OpenAI's shape; `status` and `context_length` are ours."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tallyformer"
    status: ModelState
    context_length: int | None

    @classmethod
    def of(cls, model: ServedModel) -> ModelCard:
        """The card of a model."""
        length = model.llm.llm.context_length if model.llm else None
        return cls(id=model.name, created=model.created, status=model.state, context_length=length)


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
