"""`/v1/feedback`: what is said of an answer."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from tallyformer.server.schemas.request import MOST_CHOICES, RequestBody, example

MOST_TAGS = 32
_Tag = Annotated[str, Field(min_length=1, max_length=64)]


class FeedbackRequest(RequestBody):
    """A rating, a better answer, or both."""

    model_config = example({"id": "chatcmpl-...", "rating": "up"})

    id: str = Field(max_length=80, description="The answer's id.")
    choice: int = Field(0, ge=0, lt=MOST_CHOICES, description="Which of its choices.")
    rating: Literal["up", "down"] | None = None
    corrected: str | None = Field(
        None, min_length=1, max_length=1 << 16, description="What the answer should have been."
    )
    tags: list[_Tag] = Field(default_factory=list, max_length=MOST_TAGS)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.rating is None and self.corrected is None:
            raise ValueError("rating: give up or down, or a corrected answer")
        return self


class Feedback(BaseModel):
    """What is kept of it."""

    object: Literal["feedback"] = "feedback"
    id: str
    choice: int
    rating: Literal["up", "down"] | None
    corrected: str | None
    tags: list[str]


class DeletedFeedback(BaseModel):
    """How many rated answers were deleted."""

    object: Literal["feedback.deleted"] = "feedback.deleted"
    deleted: int
