"""Where a run stands: the scalars of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tallyformer.training.precision import PrecisionName


@dataclass
class RunState:
    """Counters of a run.

    Attributes:
        step: optimizer steps done, skipped ones of fp16 included.
        tokens: ids read, those without a label too.
        seconds: wall time spent training, over all processes that worked on the run.
        best: the best evaluation so far: nats, tokens and bytes of its `TextLoss`.
        best_step: optimizer steps done at that time.
        best_files: size and checksum of each file of its weights.
        log: size and checksum of the metrics written so far.
        samples: the same of the samples; none where an earlier version wrote the checkpoint.
        stale_evaluations: evaluations since then.
        skipped: steps in a row that fp16's loss scaling left out.
        window: sums since the last line of metrics, by name; "tokens" is their count.
        scaler: state of fp16's loss scaling.
        compiled: whether this run is compiled, so that it stays so.
        precision: what the run computes in, so that it stays so.
        stopped_early: patience has run out.
        evaluation_due: the run was stopped before the evaluation that follows `step`.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    best_step: int = 0
    best_files: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)
    stale_evaluations: int = 0
    skipped: int = 0
    window: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    compiled: bool = False
    precision: PrecisionName = "fp32"
    stopped_early: bool = False
    evaluation_due: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunState:
        """The inverse of `as_json`.

        Raises:
            KeyError: a value is missing.
        """
        known = {"samples": {}, **values}
        return cls(**{f.name: known[f.name] for f in fields(cls)})
