"""`/completion`: what is sent, in the words of llama.cpp's server."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    field_validator,
    model_validator,
)

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.server.schemas.chat import MOST_MESSAGES, ChatMessage
from tallyformer.server.schemas.completions import CompletionRequest, is_ids
from tallyformer.server.schemas.request import RequestBody, example, renamed
from tallyformer.server.schemas.sampling import MOST_BIAS, MOST_BIASED, MOST_DIGITS
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
_ADDED = [{"type": "number"}, {"const": False}]
_BIASES: dict[str, Any] = {
    "anyOf": [
        {"type": "object", "additionalProperties": {"anyOf": _ADDED}},
        {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}},
    ]
}
_BIAS = 'must be an object, or a list of pairs as [5, -1.5] or ["a string", false]'
_NO_ID = f"its token ids must be integers from 0, of at most {MOST_DIGITS} digits"


def _either(field: str) -> AliasChoices:
    return AliasChoices(_NAMES[field], field)


class NativeCompletionRequest(CompletionRequest):
    """A text to continue, or several.

    A prompt may also be texts and ids in a row, and `logit_bias` may name texts, whose tokens it
    is for.
    """

    model_config = example({"prompt": "A bond pays", "n_predict": 8})
    usage_is_in_chunks: ClassVar[bool] = False

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
    logit_bias: Any = Field(
        None,
        json_schema_extra=_BIASES,
        description="Added to the logits of token ids, or of the tokens of texts, from -100 to "
        "100, or false for -100; in pairs an id is an integer.",
    )
    return_tokens: bool = Field(False, description="Give the ids of the answer too.")
    response_fields: list[str] | None = Field(
        None, max_length=64, description="Give these fields alone, as content or timings/prompt_n."
    )
    _names: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _with_the_names_that_were_sent(
        cls, given: Any, read: ModelWrapValidatorHandler[Self]
    ) -> Self:
        body = read(given)
        sent = _changing(given)
        body._names = {
            ours: theirs
            for ours, theirs in _NAMES.items()
            if sent.get(theirs) is not None or sent.get(ours) is None
        }
        return body

    @model_validator(mode="before")
    @classmethod
    def _without_what_changes_nothing(cls, given: Any) -> Any:
        return _changing(given) if isinstance(given, dict) else given

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

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _of_ids(cls, given: Any) -> Any:
        """Pairs of an id or a text, and what is added."""
        pairs = _pairs(given)
        if len(pairs) > MOST_BIASED:
            raise ValueError(f"may name {MOST_BIASED} tokens; it names {len(pairs)}")
        return [(_biased(named), _bias(added)) for named, added in pairs]

    @model_validator(mode="after")
    def _one_answer_each(self) -> Self:
        for field, given in (("n", self.n > 1), ("best_of", self.made > 1), ("echo", self.echo)):
            if given:
                raise ValueError(f"{field}: is only available at /v1/completions. Omit it")
        return self

    @property
    def biased_characters(self) -> int:
        """Of the texts in `logit_bias`, which `with_ids` encodes."""
        return sum(len(named) for named, _ in self.logit_bias or () if isinstance(named, str))

    def with_ids(self, tokenizer: Tokenizer) -> Self:
        """The same request, whose `logit_bias` names ids alone, as other requests have it.

        Raises:
            InvalidRequestError: its texts have too many tokens.
        """
        bias = {
            str(token_id): added
            for named, added in self.logit_bias or ()
            for token_id in (tokenizer.encode(named) if isinstance(named, str) else [named])
        }
        if len(bias) > MOST_BIASED:
            raise InvalidRequestError(
                f"logit_bias: may name {MOST_BIASED} tokens; its texts have {len(bias)}"
            )
        return self.model_copy(update={"logit_bias": bias or None})

    def params(self, defaults: SamplingParams, **settings: Any) -> SamplingParams:
        """As for all requests; what is refused has the name that was sent."""
        try:
            return super().params(defaults, **settings)
        except InvalidRequestError as error:
            raise renamed(error, self._names) from None


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


def _changing(given: dict[str, Any]) -> dict[str, Any]:
    """Without values that say what is done anyway."""
    return {
        name: value
        for name, value in given.items()
        if isinstance(value, bool) or value not in _NO_CHANGE.get(name, ())
    }


def _is_mixed(prompt: Any) -> bool:
    """Whether these are ids and texts in a row."""
    return (
        isinstance(prompt, list)
        and any(isinstance(part, str) for part in prompt)
        and is_ids([part for part in prompt if not isinstance(part, str)])
    )


def _pairs(given: Any) -> list[Any]:
    """What is named and what is added, of a list of such pairs or of an object."""
    if isinstance(given, dict):
        return [(_of_digits(name), added) for name, added in given.items()]
    if isinstance(given, list) and all(isinstance(one, list) and len(one) == 2 for one in given):
        return given
    raise ValueError(_BIAS)


def _of_digits(name: str) -> int | str:
    """An object's name is an id if it consists of digits."""
    if not (name.isascii() and name.isdecimal()):
        return name
    if len(name) > MOST_DIGITS:
        raise ValueError(_NO_ID)
    return int(name)


def _biased(named: Any) -> int | str:
    if isinstance(named, str) and named:
        return named
    if isinstance(named, bool) or not isinstance(named, int):
        raise ValueError(_BIAS)
    if not 0 <= named < 10**MOST_DIGITS:
        raise ValueError(_NO_ID)
    return named


def _bias(added: Any) -> float:
    if added is False:
        return -MOST_BIAS
    if isinstance(added, bool) or not isinstance(added, int | float):
        raise ValueError(_BIAS)
    if not -MOST_BIAS <= added <= MOST_BIAS:
        raise ValueError(f"what it adds must be from -{MOST_BIAS} to {MOST_BIAS}")
    return added
