"""One request, from the time it was due to the end of its answer."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Timeline:
    """What was seen of one request. Times are seconds of one clock that never goes back.

    Attributes:
        number: of the request in its cell.
        due: when it should be sent. All latencies count from here, so that a request that had to
            wait for its turn to be sent counts its waiting ("coordinated omission" is leaving
            that out).
        sent: when it was.
        chunks: when parts of the answer with text came.
        ended: when the answer was complete, or had failed.
        prompt_tokens: of the prompt, as the target counts.
        tokens: of the answer, as the target counts.
        failure: None, or what kind of failure it was.
        detail: of the failure.
    """

    number: int
    due: float
    sent: float
    chunks: array[float] = field(default_factory=lambda: array("d"))
    ended: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0
    failure: str | None = None
    detail: str = ""

    @property
    def ttft(self) -> float:
        """Seconds to the first token with content, prefill and waiting included."""
        return self.chunks[0] - self.due

    @property
    def end_to_end(self) -> float:
        """Seconds to the end of the answer."""
        return self.ended - self.due

    @property
    def itl(self) -> float | None:
        """Mean seconds between tokens after the first chunk; None for a single chunk."""
        if len(self.chunks) < 2 or self.tokens < 2:
            return None
        after_the_first = self.tokens - self.tokens / len(self.chunks)
        return (self.chunks[-1] - self.chunks[0]) / after_the_first

    @property
    def longest_pause(self) -> float | None:
        """Seconds of the longest wait for the next chunk; None for a single one."""
        pauses = (
            after - before for before, after in zip(self.chunks, self.chunks[1:], strict=False)
        )
        return max(pauses, default=None)

    def tokens_within(self, begin: float, end: float) -> float:
        """Tokens that came in a span of time; each chunk stands for as many as the others."""
        if self.failure or not self.chunks:
            return 0.0
        inside = bisect_left(self.chunks, end) - bisect_left(self.chunks, begin)
        return self.tokens * inside / len(self.chunks)

    def as_json(self, begin: float) -> dict[str, Any]:
        """For the raw results: times in seconds from `begin`."""
        return {
            "number": self.number,
            "due_s": round(self.due - begin, 6),
            "sent_s": round(self.sent - begin, 6),
            "first_s": round(self.chunks[0] - begin, 6) if self.chunks else None,
            "last_s": round(self.chunks[-1] - begin, 6) if self.chunks else None,
            "ended_s": round(self.ended - begin, 6),
            "chunks": len(self.chunks),
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "failure": self.failure,
            "detail": self.detail,
        }
