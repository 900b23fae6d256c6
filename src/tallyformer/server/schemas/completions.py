"""`/v1/completions`: what is sent."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from tallyformer.server.schemas.request import MOST_CHOICES, example
from tallyformer.server.schemas.sampling import SamplingFields

MOST_PROMPTS = 256
_FORMS = "must be a string, a list of token ids, or a list of either"
_PROMPT: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    ]
}


class CompletionRequest(SamplingFields):
    """Texts to continue."""

    model_config = example({"model": "sft", "prompt": "A bond pays", "max_tokens": 8})

    prompt: Any = Field(json_schema_extra=_PROMPT)
    echo: bool = Field(False, description="Put the prompt before the answer.")
    best_of: int | None = Field(
        None,
        ge=1,
        le=MOST_CHOICES,
        description="Make so many answers and give the n most probable.",
    )
    suffix: Any = Field(None, description="Is refused, unless it is empty.")
    logprobs: int | None = Field(
        None, ge=0, le=20, description="Log-probabilities of tokens, and of so many alternatives."
    )

    @field_validator("prompt", mode="before")
    @classmethod
    def _prompts(cls, given: Any) -> list[Any]:
        """Always a list of texts and lists of ids."""
        several = [given] if isinstance(given, str) or is_ids(given) else given
        if not isinstance(several, list) or not all(
            isinstance(p, str) or is_ids(p) for p in several
        ):
            raise ValueError(_FORMS)
        if not 1 <= len(several) <= MOST_PROMPTS:
            raise ValueError(f"must hold 1 to {MOST_PROMPTS} prompts; it holds {len(several)}")
        return several

    @field_validator("suffix", mode="before")
    @classmethod
    def _no_suffix(cls, given: Any) -> Any:
        if given == "":
            return None
        raise ValueError("this model cannot fill in before a suffix. Omit it")

    @field_validator("best_of", mode="after")
    @classmethod
    def _best_of_n(cls, given: int | None, info: ValidationInfo) -> int | None:
        fewest = info.data.get("n", 1)
        if given is not None and given < fewest:
            raise ValueError(f"must be at least n, {fewest}")
        if given is not None and given > fewest and info.data.get("stream"):
            raise ValueError("must be n in a stream, as the best is known at the end")
        return given

    @property
    def made(self) -> int:
        """Answers that are made to each prompt; the n best are given."""
        return self.best_of or self.n


def is_ids(value: Any) -> bool:
    """Whether these are ids of tokens, one or more."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    )
