"""What a run of the training loop is given, and what it gives back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tallyformer.config.training import TrainSection
from tallyformer.data.batch import BatchSource
from tallyformer.training.failures import Restart
from tallyformer.training.losses import LanguageModelLoss
from tallyformer.training.samples import TakeSamples
from tallyformer.training.validation import TextLoss


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Everything a run of the loop is given.

    Attributes:
        name: the stage's name, for the progress bar and errors.
        model: a causal language model with `model` (the body, with `blocks`) and an output head.
        make_loss: builds the loss around the model; the second argument says whether to compile it.
        train: batches of `section.micro_batch` rows.
        validation: a fixed set of batches.
        section: how the run goes.
        folder: gets metrics, TensorBoard events and checkpoints.
        best: folder that the best weights are written to by `save_best`.
        seed: of dropout.
        token_bytes: (V,) UTF-8 bytes each id stands for.
        flops_per_token: forward and backward.
        head_flops: the part of them that only tokens with a label cost.
        resume_command: what the user types to resume.
        restart_command: the same to start again, with changed keys of the section.
        take_samples: has the model write something at each validation; None writes nothing.
        clock: seconds, monotonic.
    """

    name: str
    model: Any
    make_loss: Callable[[Any, bool], LanguageModelLoss]
    train: BatchSource
    validation: BatchSource
    section: TrainSection
    folder: Path
    best: Path
    save_best: Callable[[Path], None]
    seed: int
    device: torch.device
    token_bytes: np.ndarray
    flops_per_token: float
    head_flops: float
    resume_command: str
    restart_command: Restart
    take_samples: TakeSamples | None = None
    clock: Callable[[], float] = time.monotonic

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        if self.section.steps is not None:
            return self.section.steps
        assert self.section.epochs is not None
        batches = self.section.epochs * self.train.batches_per_epoch
        return max(1, math.ceil(batches / self.section.gradient_accumulation))

    @property
    def tokens_per_step(self) -> int:
        """Ids the model reads in one optimizer step."""
        return self.train.tokens_per_batch * self.section.gradient_accumulation

    def logs_after(self, step: int) -> bool:
        """Whether a line of metrics ends with this step; none is of a few last steps alone."""
        every, left = self.section.log_every, self.steps - step
        return left == 0 or (step % every == 0 and 2 * left >= every)

    @property
    def evaluation_steps(self) -> frozenset[int]:
        """Steps after which validation runs."""
        count = min(self.section.evaluations, self.steps)
        return frozenset(math.ceil(self.steps * k / count) for k in range(1, count + 1))


@dataclass(frozen=True)
class TrainingResult:
    """What a run reached.

    Attributes:
        best: the best validation.
        files: size and checksum of each file of the best weights, as they were written.
        records: the same of the metrics and samples.
        best_step: optimizer steps done at that time.
        steps: optimizer steps done.
        tokens: ids read.
        seconds: wall time of all processes that worked on the run.
        peak_memory_mb: largest resident memory of this process while it trained.
        peak_gpu_memory_mb: the same of its tensors on the GPU; None on a CPU.
    """

    best: TextLoss
    files: Mapping[Path, Mapping[str, Any]]
    records: Mapping[Path, Mapping[str, Any]]
    best_step: int
    steps: int
    tokens: int
    seconds: float
    peak_memory_mb: float
    peak_gpu_memory_mb: float | None
    precision: str
    compiled: bool

    def metrics(self) -> dict[str, Any]:
        """Values for a manifest."""
        return {
            **{f"validation_{name}": value for name, value in self.best.values().items()},
            "best_step": self.best_step,
            "steps": self.steps,
            "tokens": self.tokens,
            "wall_seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens / max(self.seconds, 1e-9), 1),
            "peak_memory_mb": round(self.peak_memory_mb, 1),
            "peak_gpu_memory_mb": self.peak_gpu_memory_mb,
            "precision": self.precision,
            "compiled": self.compiled,
        }
