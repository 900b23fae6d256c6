"""One optimizer step over several micro-batches, equal to one step over a single large batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from tallyformer.config.training import TrainSection
from tallyformer.data.batch import BatchSource
from tallyformer.training.checkpoints import Checkpoints, trainable
from tallyformer.training.failures import Anew, not_finite
from tallyformer.training.inputs import Placement, count_labels
from tallyformer.training.losses import Loss
from tallyformer.training.optimizers import Optimizer
from tallyformer.training.precision import Precision
from tallyformer.training.run_state import RunState

MOST_SKIPPED_STEPS = 40
"""fp16 halves its loss scale at each skipped step; from 65536 this many leave no scale at all."""
_NAMED_DOCUMENTS = 5


@dataclass(frozen=True)
class StepResult:
    """Sums over the step's labelled positions, their number, and the norm before clipping."""

    sums: dict[str, float]
    labels: int
    gradient_norm: float


@dataclass(kw_only=True)
class Step:
    """Computes steps of a run; what it needs is fixed for the run."""

    name: str
    model: nn.Module
    loss: Loss
    source: BatchSource
    optimizer: Optimizer
    section: TrainSection
    precision: Precision
    placement: Placement
    checkpoints: Checkpoints
    anew_command: Anew

    def __post_init__(self) -> None:
        self.scaler = self.precision.scaler()
        self.parameters = list(trainable(self.model).values())
        # The scaler makes its tensors when it first scales something; the loss is scaled before
        # it gets there, because its gradients are computed in fp16.
        self.scaler.scale(torch.zeros((), device=self.placement.device))

    def load_scaler(self, state: dict[str, Any]) -> None:
        """Go on with the loss scale of a checkpoint."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)
            self.scaler.scale(torch.zeros((), device=self.placement.device))

    def scaler_state(self) -> dict[str, Any]:
        """The loss scaling's state; empty unless fp16."""
        return dict(self.scaler.state_dict())

    def run(
        self, state: RunState, learning_rate: float, interrupted: Callable[[], bool]
    ) -> StepResult | None:
        """Do step `state.step`.

        A step without a single label changes nothing.

        Returns:
            What was measured; None if `interrupted` between two micro-batches, with the weights
            as they were.

        Raises:
            TrainingError: the loss or a gradient is not finite.
        """
        count = self.section.gradient_accumulation
        numbers = range(state.step * count, (state.step + 1) * count)
        batches = {number: self.source.batch(number) for number in numbers}
        counts = {number: count_labels(batch) for number, batch in batches.items()}
        labels = sum(counts.values())
        if not labels:
            return StepResult(dict.fromkeys(self.loss.names, 0.0), 0, 0.0)
        scale = (self.scaler.get_scale() if self.scaler.is_enabled() else 1.0) / labels
        sums_K: dict[int, torch.Tensor] = {}
        for number in (number for number in numbers if counts[number]):
            if sums_K and interrupted():
                self.optimizer.zero_grad()
                return None
            inputs = self.placement(batches[number])
            objective, sums_K[number] = self.loss(self.model, inputs, scale, self.precision)
            objective.backward()  # type: ignore[no-untyped-call]
        sums_MK = torch.stack(list(sums_K.values())).tolist()
        norm = self._gradient_norm()
        self._check(state, list(sums_K), sums_MK, norm)
        self._update(state, learning_rate, norm)
        totals = [math.fsum(column) for column in zip(*sums_MK, strict=True)]
        sums = dict(zip(self.loss.names, totals[1:], strict=True))
        return StepResult(sums, labels, norm)

    def _gradient_norm(self) -> float:
        # It reads the parameter groups alone, which a `Combined` has too.
        self.scaler.unscale_(cast(torch.optim.Optimizer, self.optimizer))
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def _update(self, state: RunState, learning_rate: float, norm: float) -> None:
        state.skipped = 0 if math.isfinite(norm) else state.skipped + 1
        if not state.skipped:
            if norm > self.section.optimizer.clip_norm:
                torch.nn.utils.clip_grads_with_norm_(
                    self.parameters, self.section.optimizer.clip_norm, torch.tensor(norm)
                )
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.scaler.update()
        self.optimizer.zero_grad()

    def _check(
        self, state: RunState, numbers: list[int], sums_MK: list[list[float]], norm: float
    ) -> None:
        bad = [n for n, sums in zip(numbers, sums_MK, strict=True) if not _all_finite(sums)]
        if not bad and math.isfinite(norm):
            return
        # fp16 overflows now and then; its scaler lowers the scale and the step is left out.
        if self.scaler.is_enabled() and state.skipped < MOST_SKIPPED_STEPS:
            return
        raise not_finite(
            f"{self.name}: step {state.step + 1}",
            "the loss" if bad else "the gradient norm",
            self._documents(bad or numbers),
            self.checkpoints.newest(),
            self.section.optimizer.learning_rate,
            self.anew_command,
        )

    def _documents(self, numbers: list[int]) -> str:
        names = [name for number in numbers for name in self.source.documents(number)]
        names = list(dict.fromkeys(names))
        rest = len(names) - _NAMED_DOCUMENTS
        return ", ".join(names[:_NAMED_DOCUMENTS]) + (f" and {rest} more" if rest > 0 else "")


def _all_finite(values: list[float]) -> bool:
    return all(math.isfinite(value) for value in values)
