"""The list of models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from tallyformer.server.models import ModelState, ServedModel


class ModelCard(BaseModel):
    """One model, in OpenAI's shape; `status` and the sizes are ours, known once it is ready.

    `max_model_len` is vLLM's name of `context_length`.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tallyformer"
    status: ModelState
    context_length: int | None
    max_model_len: int | None
    parameters: int | None
    layers: int | None
    heads: int | None
    hidden_size: int | None

    @classmethod
    def of(cls, model: ServedModel) -> ModelCard:
        """The card of a model."""
        sizes = model.sizes
        context = model.llm.llm.context_length if model.llm else None
        return cls(
            id=model.name,
            created=model.created,
            status=model.state,
            context_length=context,
            max_model_len=context,
            parameters=sizes and sizes.parameters,
            layers=sizes and sizes.layers,
            heads=sizes and sizes.heads,
            hidden_size=sizes and sizes.hidden,
        )


class ModelList(BaseModel):
    """All models; `runs`, which is ours, says whether the server shows training runs too."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    runs: bool = False
