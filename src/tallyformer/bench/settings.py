"""What a benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """The workload and what is expected of the answers.

    Attributes:
        prompt_tokens: lengths of prompts, in tokens.
        output_tokens: tokens of an answer.
        streams: requests at once in the closed loops.
        loads: rates of arrivals in the open loops, as shares of the capacity; may be empty.
        seconds: that each cell is measured.
        warmup: seconds, at least, that are dropped before.
        timeout: seconds after which a request has failed.
        target_ttft_ms: longest time to the first token of a good answer.
        target_itl_ms: longest mean time between its tokens.
        seed: of prompts and arrivals.
    """

    prompt_tokens: tuple[int, ...] = (4, 32, 128, 250)
    output_tokens: int = 64
    streams: tuple[int, ...] = (1, 4, 16, 64)
    loads: tuple[float, ...] = (0.25, 0.5, 0.8, 1.0)
    seconds: float = 10.0
    warmup: float = 1.0
    timeout: float = 120.0
    target_ttft_ms: float = 200.0
    target_itl_ms: float = 50.0
    seed: int = 0

    @property
    def cells(self) -> int:
        """How many measurements that are, of one dtype and device."""
        closed = len(self.prompt_tokens) * len(self.streams)
        return closed + bool(self.loads) + len(self.loads)
