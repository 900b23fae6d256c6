"""`/completion`: what is sent, in the words of llama.cpp's server."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from tallyformer.server.schemas.chat import MOST_MESSAGES, ChatMessage
from tallyformer.server.schemas.completions import CompletionRequest
from tallyformer.server.schemas.request import RequestBody, example

_NAMES = {"n_predict": "max_tokens", "repeat_penalty": "repetition_penalty", "n_probs": "logprobs"}
_ENDLESS = (-1, -2)


class NativeCompletionRequest(CompletionRequest):
    """A text to continue, or several.

    `n_predict`, `repeat_penalty` and `n_probs` are the names here of `max_tokens`,
    `repetition_penalty` and `logprobs`.
    """

    model_config = example({"prompt": "A bond pays", "n_predict": 8})

    return_tokens: bool = Field(False, description="Give the ids of the answer too.")

    @model_validator(mode="before")
    @classmethod
    def _as_completions(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        body = {_NAMES.get(name, name): value for name, value in given.items()}
        if body.get("max_tokens") in _ENDLESS:
            del body["max_tokens"]
        if body.get("seed") == -1:
            del body["seed"]
        if body.get("logprobs") == 0:
            del body["logprobs"]
        # Some clients send an empty one always.
        if body.get("grammar") == "":
            del body["grammar"]
        if isinstance(pairs := body.get("logit_bias"), list):
            body["logit_bias"] = _bias(pairs)
        return body

    @model_validator(mode="after")
    def _one_answer_each(self) -> Self:
        if self.made > 1 or self.echo:
            raise ValueError("n, best_of and echo are for /v1/completions")
        return self


class TemplateRequest(RequestBody):
    """A conversation."""

    model_config = example({"messages": [{"role": "user", "content": "What is a bond?"}]})

    model: str | None = Field(None, description="Default: the first model.")
    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)


class TemplatePrompt(BaseModel):
    """The text of what a model reads of it."""

    prompt: str


def _bias(pairs: list[Any]) -> Any:
    """Pairs of an id and a bias, or false for an id that is not to come, as an object."""
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return pairs
    return {str(token_id): -100 if bias is False else bias for token_id, bias in pairs}
