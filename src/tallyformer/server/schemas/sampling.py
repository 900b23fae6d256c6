"""Fields of a request that say how an answer is sampled; the engine knows their ranges."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.server.schemas.answer_form import FormFields
from tallyformer.server.schemas.neutral import NEUTRAL
from tallyformer.server.schemas.request import MOST_STOPS, Choices, RequestBody, RequestPart, Stop

_ENGINE_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "mode",
    "frequency_penalty",
    "presence_penalty",
    "ignore_eos",
    "stop",
    "repetition_penalty",
    "min_tokens",
)
_SEEDS = 1 << 63
ALL_TOKENS = -1
"""vLLM's word for a `top_k` that keeps all."""
MOST_BIAS = 100
MOST_BIASED = 1024
MOST_DIGITS = 9
"""Of an id; every vocabulary has fewer tokens."""
_COUNTED = "stream_options.continuous_usage_stats"
_LEAST_MASS = 1e-9
"""A mass that any most probable token has; the engine wants one above 0."""


_Bias = Annotated[float, Field(ge=-MOST_BIAS, le=MOST_BIAS)]


class StreamOptions(RequestPart):
    """What a stream has besides the answer."""

    include_usage: bool = Field(False, description="Send the usage before the end.")
    continuous_usage_stats: bool = Field(
        False, description="With include_usage: send what is used until now in each chunk too."
    )
    rejoin: bool = Field(
        False,
        description="Number the events and continue without the client, who may join again at "
        "/v1/generations/{id}.",
    )


class SamplingFields(FormFields, RequestBody):
    """What all ways of asking share.

    Attributes:
        usage_is_in_chunks: whether a stream's chunks can have the usage until then.
    """

    usage_is_in_chunks: ClassVar[bool] = True

    model: str | None = Field(
        None,
        max_length=100,
        description="Name of a model, as /v1/models lists it. Default: the first.",
    )
    stream: bool = Field(False, description="Send the answer as server-sent events.")
    stream_options: StreamOptions | None = None
    n: Choices = Field(1, description="Answers to each prompt.")
    max_tokens: int | None = Field(
        None, ge=0, description="At most this many tokens. Default: the room that is left."
    )
    temperature: float | None = Field(None, description="0 takes the most probable token.")
    top_p: float | None = Field(
        None, description="Keep the tokens that hold this mass; 0 keeps the most probable one."
    )
    top_k: int | None = Field(None, description="Keep this many tokens; 0 or -1 keeps all.")
    min_p: float | None = Field(None, description="Keep tokens of at least this share of the best.")
    mode: Literal["combined", "independent"] | None = Field(
        None, description="Measure top_p within top_k, or on the whole distribution."
    )
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: Stop | None = Field(None, description="Texts before which the answer ends.")
    stop_token_ids: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, max_length=MOST_STOPS, description="Ids that end the answer besides end-of-text."
    )
    ignore_eos: bool | None = Field(None, description="Continue after the model's end-of-text.")
    seed: int | None = Field(None, description="The same seed gives the same answer.")
    repetition_penalty: float | None = Field(None, description="Above 1 repeats less.")
    min_tokens: int | None = Field(None, description="No end-of-text before this many tokens.")
    logit_bias: dict[str, _Bias] | None = Field(
        None,
        max_length=MOST_BIASED,
        description="Added to the logits of token ids, from -100 to 100.",
    )
    user: str | None = Field(
        None, max_length=256, description="Who asks; kept only with an answer that is rated."
    )

    @field_validator("stream_options", mode="after")
    @classmethod
    def _of_a_stream(cls, given: StreamOptions | None, info: ValidationInfo) -> Any:
        if given is not None and not info.data.get("stream"):
            raise ValueError("needs stream: true")
        return given

    @field_validator("stop", mode="before")
    @classmethod
    def _one_error_for_stop(cls, given: Any) -> Any:
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(t, str) and t for t in texts):
            raise ValueError("must be a string, or a list of strings, none of them empty")
        if len(texts) > MOST_STOPS:
            raise ValueError(f"may hold {MOST_STOPS} strings; it holds {len(texts)}")
        return given

    @field_validator("top_k", mode="after")
    @classmethod
    def _all_tokens(cls, given: int | None) -> int | None:
        return 0 if given == ALL_TOKENS else given

    @field_validator("logit_bias", mode="after")
    @classmethod
    def _of_ids(cls, given: dict[str, float] | None) -> dict[str, float] | None:
        if given is not None and not all(map(_is_id, given)):
            raise ValueError("its keys must be token ids")
        return given

    @model_validator(mode="after")
    def _nothing_that_would_change_the_answer(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name in NEUTRAL and value not in NEUTRAL[name]:
                raise ValueError(f"{name}: this server cannot do that. Omit it")
        return self

    @field_validator("seed", "max_tokens", mode="before")
    @classmethod
    def _no_endless_number(cls, given: Any) -> Any:
        if isinstance(given, int) and not isinstance(given, bool) and abs(given) >= _SEEDS:
            raise ValueError("must be an integer of 64 bits")
        return given

    @property
    def usage_in_stream(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def usage_in_chunks(self) -> bool:
        """Whether each chunk of a stream has the usage until now."""
        options = self.stream_options
        asked = options is not None and options.include_usage and options.continuous_usage_stats
        return self.usage_is_in_chunks and asked

    @property
    def may_rejoin(self) -> bool:
        """Whether a stream can be joined again."""
        return self.stream_options is not None and self.stream_options.rejoin

    def ignored(self) -> list[str]:
        """Names of fields that have no effect."""
        options = self.stream_options
        counted = options is not None and options.continuous_usage_stats
        without_effect = [_COUNTED] if counted and not self.usage_in_chunks else []
        return [*without_effect, *super().ignored()]

    def params(
        self, defaults: SamplingParams, *, max_tokens: int, n: int, **more: Any
    ) -> SamplingParams:
        """The engine's settings of the answers to one prompt.

        Args:
            defaults: how the model's folder wants to be sampled, where the request does not say.
            max_tokens: of the answer.
            n: answers.
            more: of the engine's settings.

        Raises:
            InvalidRequestError: a value is out of range.
        """
        given: dict[str, Any] = {
            name: value for name in _ENGINE_FIELDS if (value := getattr(self, name)) is not None
        }
        if self.top_p == 0:
            given["top_p"] = _LEAST_MASS
        if self.seed is not None:
            given["seed"] = self.seed % _SEEDS
        if self.stop_token_ids:
            given["stop_token_ids"] = (*defaults.stop_token_ids, *self.stop_token_ids)
        if self.logit_bias:
            given["logit_bias"] = {int(name): bias for name, bias in self.logit_bias.items()}
        given |= {**more, "max_tokens": max_tokens, "n": n}
        if self.logit_bias or isinstance(self.stop, list) or more.get("token_mask") is not None:
            return dataclasses.replace(defaults, **given)
        return _settings(defaults, **given)


@functools.lru_cache(256)
def _settings(defaults: SamplingParams, **given: Any) -> SamplingParams:
    """Checked once for all requests alike."""
    return dataclasses.replace(defaults, **given)


def _is_id(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) <= MOST_DIGITS


def refuse_unless(given: Any, allowed: tuple[Any, ...], message: str) -> Any:
    """For validators of fields that change the answer: only what does not is let through.

    Raises:
        ValueError: the value is none of those allowed.
    """
    if given not in allowed:
        raise ValueError(message)
    return given
