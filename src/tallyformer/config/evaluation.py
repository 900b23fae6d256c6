"""The `evaluate` and `export` sections."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tallyformer.config.base import Section


class EvaluateSection(Section):
    """What is measured on the models of a run; the report shows all of it."""

    tokens_per_domain: int = Field(200_000, ge=1)
    """At most this many validation ids of each source."""
    pairs: int = Field(500, ge=0)
    """At most this many held-out pairs for the response perplexity."""
    facts: bool = False
    """Ask the primer's held-out questions and look for the key fact in each answer."""
    manners: bool = False
    """Ask held-out greetings, thanks, off-topic questions and follow-ups."""
    arithmetic: int = Field(0, ge=0)
    """How many held-out worked examples to ask."""
    prompts: tuple[str, ...] = ()
    """Questions whose answers are shown as samples; without any, see
    [Evaluation](evaluation.md#samples)."""
    max_tokens: int = Field(96, ge=1)
    """Longest answer in ids."""

    @model_validator(mode="after")
    def _prompts_ask_something(self) -> Self:
        for place, prompt in enumerate(self.prompts):
            if not prompt.strip():
                raise ValueError(f"prompts.{place} is empty. Write a question, or take it out")
        return self


class ExportSection(Section):
    """The final Hugging Face folder."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the stored weights."""
