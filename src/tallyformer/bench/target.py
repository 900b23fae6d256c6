"""What a benchmark asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class RequestFailed(Exception):  # noqa: N818 - an outcome that is counted
    """A request got no whole answer.

    Attributes:
        kind: a few words, the same for failures of one kind; they are counted by it.
        detail: what more is known of this one.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class Counts:
    """Tokens of one request, as the target counts them."""

    prompt: int
    answer: int


class Target(Protocol):
    """Answers prompts.

    Attributes:
        name: of the model.
        facts: what it is, for the report: `dtype`, `device`, `runner`, ...
    """

    name: str
    facts: dict[str, Any]

    async def prepare(self, prompt_tokens: int) -> bool:
        """Find out how prompts of this length are made, before any is timed.

        Returns:
            Whether the model reads so long ones whole.
        """

    def prompt(self, tokens: int, *key: int | str) -> Any:
        """A prompt of about so many tokens; each key gives another."""

    async def ask(self, prompt: Any, output_tokens: int, heard: Callable[[], None]) -> Counts:
        """Have one prompt answered.

        Args:
            prompt: of `prompt`.
            output_tokens: tokens of the answer.
            heard: called when a part of the answer with text arrives.

        Raises:
            RequestFailed: there is no answer, or no whole one.
        """
