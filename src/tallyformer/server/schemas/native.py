"""`/completion`: what is sent, in the words of llama.cpp's server."""

from __future__ import annotations

from typing import Any, Self

from pydantic import AliasChoices, BaseModel, Field, field_validator, model_validator

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.server.schemas.chat import MOST_MESSAGES, ChatMessage
from tallyformer.server.schemas.completions import CompletionRequest, is_ids
from tallyformer.server.schemas.request import RequestBody, example, renamed
from tallyformer.server.schemas.tokens import ADD_GENERATION_PROMPT, CONTINUE_FINAL_MESSAGE
from tallyformer.tokenizer.tokenizer import Tokenizer

_NAMES = {"max_tokens": "n_predict", "repetition_penalty": "repeat_penalty", "logprobs": "n_probs"}
_NO_CHANGE = {
    "n_predict": (-1, -2),
    "max_tokens": (-1, -2),
    "seed": (-1,),
    "n_probs": (0,),
    # Some clients send an empty one always.
    "grammar": ("",),
}
"""Values that say what is done anyway."""


def _either(field: str) -> AliasChoices:
    return AliasChoices(_NAMES[field], field)


class NativeCompletionRequest(CompletionRequest):
    """A text to continue, or several.

    A prompt may also be texts and ids in a row, and `logit_bias` may name texts, whose tokens it
    is for.
    """

    model_config = example({"prompt": "A bond pays", "n_predict": 8})

    max_tokens: int | None = Field(
        None,
        ge=0,
        validation_alias=_either("max_tokens"),
        description="At most this many tokens; -1 and the default: the room that is left.",
    )
    repetition_penalty: float | None = Field(
        None, validation_alias=_either("repetition_penalty"), description="Above 1 repeats less."
    )
    logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        validation_alias=_either("logprobs"),
        description="Log-probabilities of tokens, and of so many alternatives.",
    )
    return_tokens: bool = Field(False, description="Give the ids of the answer too.")
    response_fields: list[str] | None = Field(
        None, max_length=64, description="Give these fields alone, as content or timings/prompt_n."
    )

    @model_validator(mode="before")
    @classmethod
    def _without_what_changes_nothing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        body = {
            name: value
            for name, value in given.items()
            if isinstance(value, bool) or value not in _NO_CHANGE.get(name, ())
        }
        if isinstance(pairs := body.get("logit_bias"), list):
            body["logit_bias"] = _bias(pairs)
        return body

    @field_validator("prompt", mode="before")
    @classmethod
    def _prompts(cls, given: Any) -> list[Any]:
        if _is_mixed(given):
            return [given]
        if isinstance(given, list) and any(map(_is_mixed, given)):
            others = [prompt for prompt in given if not _is_mixed(prompt)]
            super()._prompts([*others, "."])
            return given
        prompts: list[Any] = super()._prompts(given)
        return prompts

    @field_validator("logit_bias", mode="after")
    @classmethod
    def _of_ids(cls, given: dict[str, float] | None) -> dict[str, float] | None:
        return given

    @model_validator(mode="after")
    def _one_answer_each(self) -> Self:
        for field, given in (("n", self.n > 1), ("best_of", self.made > 1), ("echo", self.echo)):
            if given:
                raise ValueError(f"{field}: is for /v1/completions. Leave it out")
        return self

    def with_ids(self, tokenizer: Tokenizer) -> Self:
        """The same request, whose `logit_bias` names ids in place of texts."""
        bias = {
            str(token_id): number
            for name, number in (self.logit_bias or {}).items()
            for token_id in ([name] if name.isdecimal() else tokenizer.encode(name))
        }
        return self.model_copy(update={"logit_bias": bias or None})

    def params(self, defaults: SamplingParams, **settings: Any) -> SamplingParams:
        """As for all requests, with this server's names in what is refused."""
        try:
            return super().params(defaults, **settings)
        except InvalidRequestError as error:
            raise renamed(error, _NAMES) from None


class TemplateRequest(RequestBody):
    """A conversation."""

    model_config = example({"messages": [{"role": "user", "content": "What is a bond?"}]})

    model: str | None = Field(None, description="Default: the first model.")
    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    add_generation_prompt: bool | None = ADD_GENERATION_PROMPT
    continue_final_message: bool | None = CONTINUE_FINAL_MESSAGE


class TemplatePrompt(BaseModel):
    """The text of what a model reads of it."""

    prompt: str


def _is_mixed(prompt: Any) -> bool:
    """Whether these are ids and texts in a row."""
    return (
        isinstance(prompt, list)
        and any(isinstance(part, str) for part in prompt)
        and is_ids([part for part in prompt if not isinstance(part, str)])
    )


def _bias(pairs: list[Any]) -> Any:
    """Pairs of an id and a bias, or false for an id that is not to come, as an object."""
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return pairs
    return {str(token_id): -100 if bias is False else bias for token_id, bias in pairs}
