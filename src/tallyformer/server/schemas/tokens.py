"""`/tokenize` and `/detokenize`: field names of vLLM's and of llama.cpp's servers."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field, model_validator

from tallyformer.server.schemas.chat import MOST_MESSAGES, ChatMessage
from tallyformer.server.schemas.request import RequestBody, example

MOST_IDS = 1 << 18
ADD_GENERATION_PROMPT = Field(
    None,
    description="Whether an answer begins behind the messages. Default: unless one is continued.",
)
CONTINUE_FINAL_MESSAGE = Field(
    None, description="Whether an assistant's last message is left open, as by default."
)
_OF_MESSAGES = ("add_generation_prompt", "continue_final_message")


class TokenizeRequest(RequestBody):
    """A text or a conversation."""

    model_config = example({"prompt": "What is a bond?"})

    model: str | None = Field(None, description="Default: the first model.")
    prompt: str | None = Field(None, description="A text; content is the same.")
    content: str | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=MOST_MESSAGES)
    with_pieces: bool = Field(False, description="Give each token's text, or bytes, too.")
    return_token_strs: bool = Field(False, description="Give the tokens' texts in a list too.")
    add_generation_prompt: bool | None = ADD_GENERATION_PROMPT
    continue_final_message: bool | None = CONTINUE_FINAL_MESSAGE

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [
            name for name in ("prompt", "content", "messages") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError("prompt: give exactly one of prompt, content and messages")
        return self

    def ignored(self) -> list[str]:
        """Names of fields that have no effect."""
        names = () if self.messages is not None else _OF_MESSAGES
        without_effect = [name for name in names if getattr(self, name) is not None]
        return [*without_effect, *super().ignored()]


class TokenPiece(BaseModel):
    """An id and what it stands for: a text, or bytes that are not a text by themselves."""

    id: int
    piece: str | list[int]


class Tokens(BaseModel):
    """Ids of a text."""

    tokens: list[int] | list[TokenPiece]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class DetokenizeRequest(RequestBody):
    """Ids."""

    model_config = example({"tokens": [1, 2, 3]})

    model: str | None = Field(None, description="Default: the first model.")
    tokens: list[int] = Field(max_length=MOST_IDS)


class DetokenizedText(BaseModel):
    """Their text, under both names."""

    prompt: str
    content: str
