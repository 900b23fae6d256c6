"""Where a run stands: the scalars of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class RunState:
    """Counters of a run.

    Attributes:
        step: optimizer steps done, skipped ones of fp16 included.
        tokens: labelled positions trained on.
        seconds: wall time spent training, over all processes that worked on the run.
        best: validation numbers of the best evaluation so far: step, loss, bits_per_byte.
        stale_evaluations: evaluations since then.
        skipped: steps in a row that fp16's loss scaling left out.
        window: sums since the last line of metrics, by name; "tokens" is their count.
        scaler: state of fp16's loss scaling.
        compiled: whether this run is compiled, so that it stays so.
        stopped_early: patience has run out.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    stale_evaluations: int = 0
    skipped: int = 0
    window: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    compiled: bool = False
    stopped_early: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunState:
        """The inverse of `as_json`."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})
