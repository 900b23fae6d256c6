"""`/v1/responses`: what is sent, for text without state on the server."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from tallyformer.server.schemas.answer_form import AnswerForm
from tallyformer.server.schemas.chat import MOST_MESSAGES, ChatMessage
from tallyformer.server.schemas.request import RequestPart, example
from tallyformer.server.schemas.response_format import checked_format, wanted_schema
from tallyformer.server.schemas.sampling import SamplingFields, refuse_unless

_NO_STATE = "this server keeps no conversation. Send all messages in input"
_MESSAGES: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
_INPUT: dict[str, Any] = {"anyOf": [{"type": "string"}, _MESSAGES]}
_LOGPROBS = "message.output_text.logprobs"
_REASONING = "reasoning"
_TEXT_PARTS = ("input_text", "output_text")


class InputMessage(ChatMessage):
    """One message; its parts are of type input_text or output_text."""

    fields_of_parts = ChatMessage.fields_of_parts | {"annotations", "logprobs"}
    """Those that an answer's parts have too, which are sent back."""
    type: Literal["message"] = "message"

    @field_validator("content", mode="before")
    @classmethod
    def _parts_of_text(cls, given: Any) -> Any:
        if not isinstance(given, list):
            return given
        return [
            {**part, "type": "text"}
            if isinstance(part, dict) and part.get("type") in _TEXT_PARTS
            else part
            for part in given
        ]


class ReasoningItem(RequestPart):
    """What another model thought, which its history holds; it has no effect."""

    type: Literal["reasoning"]

    def ignored(self) -> list[str]:
        """The name that stands for all of it."""
        return [_REASONING]


def _kind(item: Any) -> str:
    return _THOUGHT if isinstance(item, dict) and item.get("type") == _REASONING else _SAID


_SAID, _THOUGHT = "input-message", "input-reasoning"
"""Names of kinds have a hyphen, so that no error takes them for names of fields."""
_Item = Annotated[
    Annotated[InputMessage, Tag(_SAID)] | Annotated[ReasoningItem, Tag(_THOUGHT)],
    Discriminator(_kind),
]


class TextFormat(RequestPart):
    """How the text is written."""

    format: Any = Field(None, description="text, json_object, or json_schema with a schema.")

    @field_validator("format", mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        return checked_format(given)


class ResponsesRequest(SamplingFields):
    """A text or conversation to answer."""

    model_config = example({"model": "sft", "input": "What is a bond?"})
    usage_is_in_chunks: ClassVar[bool] = False

    input: list[_Item] = Field(description="A question, or messages.", json_schema_extra=_INPUT)
    instructions: str | None = Field(None, description="As a system message before all others.")
    max_output_tokens: int | None = Field(None, ge=1)
    metadata: dict[str, str] | None = Field(None, max_length=16, description="Is sent back.")
    text: TextFormat | None = None
    truncation: Literal["auto", "disabled"] = Field(
        "disabled", description="auto leaves out the oldest turns until the rest fits."
    )
    tools: list[Any] | None = Field(None, max_length=128, description="Have no effect.")
    tool_choice: Any = Field(None, description="none or auto.")
    previous_response_id: Any = Field(None, description="Is refused.")
    conversation: Any = Field(None, description="Is refused.")
    prompt: Any = Field(None, description="Is refused.")
    include: list[str] | None = Field(
        None, max_length=32, description=f"{_LOGPROBS}; others have no effect."
    )
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="Log-probabilities of so many alternatives to each token."
    )
    background: bool = Field(False, description="Only false.")

    @field_validator("input", mode="before")
    @classmethod
    def _messages(cls, given: Any) -> Any:
        if isinstance(given, str):
            return [{"role": "user", "content": given}]
        if not isinstance(given, list):
            raise ValueError("must be a string or a list of messages")
        if not 1 <= len(given) <= MOST_MESSAGES:
            raise ValueError(f"must hold 1 to {MOST_MESSAGES} messages; it holds {len(given)}")
        return given

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _no_forced_tool(cls, given: Any) -> Any:
        return refuse_unless(given, ("none", "auto"), "this model cannot be made to call a tool")

    @field_validator("previous_response_id", "conversation", "prompt", mode="before")
    @classmethod
    def _no_state(cls, given: Any) -> Any:
        raise ValueError(_NO_STATE)

    @field_validator("background", mode="after")
    @classmethod
    def _foreground(cls, given: bool) -> bool:
        return bool(refuse_unless(given, (False,), "answers are given at once. Omit it"))

    @field_validator("n", mode="after")
    @classmethod
    def _one_answer(cls, given: int) -> int:
        return int(refuse_unless(given, (1,), "this endpoint gives one answer. Omit it"))

    @property
    def messages(self) -> list[ChatMessage]:
        """All messages, the instructions before them."""
        first = (
            []
            if self.instructions is None
            else [ChatMessage(role="system", content=self.instructions)]
        )
        return [*first, *(item for item in self.input if isinstance(item, InputMessage))]

    @property
    def wanted_format(self) -> AnswerForm | None:
        """What `text` or `response_format` says."""
        if self.text is None or self.text.format is None:
            return super().wanted_format
        schema = wanted_schema(self.text.format)
        return None if schema is None else AnswerForm("text", "json", schema)

    @property
    def most_tokens(self) -> int | None:
        """How long the answer may be, if the request says."""
        return self.max_tokens if self.max_output_tokens is None else self.max_output_tokens

    @property
    def logprobs(self) -> int | None:
        """How many alternatives to each token are given; None gives no log-probabilities."""
        wanted = _LOGPROBS in (self.include or ()) or self.top_logprobs
        return (self.top_logprobs or 0) if wanted else None

    def ignored(self) -> list[str]:
        """Names of fields that have no effect."""
        without_effect = ["tools"] if self.tools else []
        if None not in (self.max_tokens, self.max_output_tokens):
            without_effect.append("max_tokens")
        if any(name != _LOGPROBS for name in self.include or ()):
            without_effect.append("include")
        return [*without_effect, *super().ignored()]
