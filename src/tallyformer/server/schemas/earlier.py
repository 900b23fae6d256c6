"""`/welcome` and `/generate` of the earlier system of this name: exactly its fields."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from tallyformer.server.schemas.request import RequestBody, example


class Welcome(BaseModel):
    """What the first model is."""

    name: str
    size: str
    context: int
    layers: int
    heads: int
    hidden_size: int


class GenerateRequest(RequestBody):
    """A text to continue, or to answer by a fine-tuned model."""

    model_config = example(
        {"prompt": "What is a bond?", "model_name": "sft", "return_metrics": True}
    )

    prompt: str
    model_name: str = Field("sft", description="pretrain, distilled or sft, or another's name.")
    max_new_tokens: int | None = Field(None, ge=1, description="Default: the room that is left.")
    temperature: float | None = None
    topk: int | None = None
    topp: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    mode: Literal["combined", "independent"] | None = None
    return_metrics: bool = False


class GenerateMetrics(BaseModel):
    """How long it took."""

    prompt_tokens: int
    generated_tokens: int
    total_time_sec: float
    generated_tokens_per_sec: float
    total_tokens_per_sec: float
    ttft_ms: float


class Generated(BaseModel):
    """The continuation or answer."""

    generated_text: str
    metrics: GenerateMetrics | None
