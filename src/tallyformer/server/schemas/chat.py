"""`/v1/chat/completions`: what is sent."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tallyformer.server.schemas.request import RequestPart, example
from tallyformer.server.schemas.sampling import SamplingFields, refuse_unless
from tallyformer.tokenizer.messages import content_text

MOST_MESSAGES = 4096
TEXT_ALONE = "this model reads and writes text alone"
_PARTS = 'must be a string, or parts as {"type": "text", "text": "..."}'
_NO_CALLS = "this model cannot be made to call a tool. Omit it, or write none or auto"
_CONTENT: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]
}


class ChatMessage(RequestPart):
    """One message; the parts of a content are joined by line breaks."""

    fields_of_parts: ClassVar[frozenset[str]] = frozenset({"type", "text"})
    """Others have no effect, and are named."""
    role: Literal["system", "developer", "user", "assistant"]
    content: str = Field("", json_schema_extra=_CONTENT)
    name: str | None = Field(None, max_length=256, description="Has no effect.")
    _in_parts: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="wrap")
    @classmethod
    def _with_names_in_parts(cls, given: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        message = read(given)
        parts = given.get("content") if isinstance(given, dict) else None
        if isinstance(parts, list):
            names = dict.fromkeys(name for part in parts for name in part if part[name] is not None)
            message._in_parts = [f"content.{n}" for n in names if n not in cls.fields_of_parts]
        return message

    @field_validator("content", mode="before")
    @classmethod
    def _text(cls, given: Any) -> Any:
        text = "" if given == [] else content_text(given)
        if text is None:
            raise ValueError(f"{_PARTS}; {TEXT_ALONE}")
        return text

    def ignored(self) -> list[str]:
        """Names of fields that have no effect."""
        return [*self._in_parts, *(["name"] if self.name else []), *super().ignored()]


class ChatRequest(SamplingFields):
    """A conversation to answer."""

    model_config = example(
        {"model": "sft", "messages": [{"role": "user", "content": "What is a bond?"}]}
    )

    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int | None = Field(
        None, ge=1, description="At most this many tokens. Default: the room that is left."
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, description="The same as max_tokens, in whose place it is taken."
    )
    logprobs: bool = Field(False, description="Give the tokens' log-probabilities.")
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="And those of so many alternatives; needs logprobs."
    )
    tools: list[Any] | None = Field(None, max_length=128, description="Have no effect.")
    tool_choice: Any = Field(None, description="none or auto.")
    functions: list[Any] | None = Field(None, max_length=128, description="Have no effect.")
    function_call: Any = Field(None, description="none or auto.")
    add_generation_prompt: bool | None = Field(None, description="Whether a new answer begins.")
    continue_final_message: bool | None = Field(
        None, description="Whether the assistant's last message is continued, as by default."
    )
    modalities: Any = Field(None, description='["text"].')
    audio: Any = Field(None, description="Is refused.")
    web_search_options: Any = Field(None, description="Is refused.")

    @field_validator("top_logprobs", mode="after")
    @classmethod
    def _with_logprobs(cls, given: int | None, info: ValidationInfo) -> int | None:
        if given and not info.data.get("logprobs"):
            raise ValueError("needs logprobs: true")
        return given

    @model_validator(mode="after")
    def _begins_or_continues(self) -> Self:
        continues = self.messages[-1].role == "assistant"
        said = {"add_generation_prompt": not continues, "continue_final_message": continues}
        for name, value in said.items():
            if getattr(self, name) not in (None, value):
                raise ValueError(
                    f"{name}: an assistant's last message is continued, and after any other one a "
                    "new answer begins. Omit it"
                )
        return self

    @field_validator("tool_choice", "function_call", mode="before")
    @classmethod
    def _no_forced_call(cls, given: Any) -> Any:
        return refuse_unless(given, ("none", "auto"), _NO_CALLS)

    @field_validator("modalities", mode="before")
    @classmethod
    def _only_text(cls, given: Any) -> Any:
        return refuse_unless(given, (["text"],), TEXT_ALONE)

    @field_validator("audio", "web_search_options", mode="before")
    @classmethod
    def _refused(cls, given: Any) -> Any:
        raise ValueError(TEXT_ALONE)

    @property
    def most_tokens(self) -> int | None:
        """How long the answer may be, if the request says."""
        given = self.max_completion_tokens
        return self.max_tokens if given is None else given

    def ignored(self) -> list[str]:
        """Names of fields that have no effect."""
        without_effect = [name for name in ("tools", "functions") if getattr(self, name)]
        if None not in (self.max_tokens, self.max_completion_tokens):
            without_effect.append("max_tokens")
        return [*without_effect, *super().ignored()]
