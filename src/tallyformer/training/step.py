"""One optimizer step over several micro-batches, equal to one step over a single large batch.

Shapes: M micro-batches with a label, K sums of the loss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch

from tallyformer.training.losses import LanguageModelLoss
from tallyformer.training.micro_batch import HostBatch, Placement
from tallyformer.training.optimizers import Optimizer
from tallyformer.training.precision import Precision

MOST_SKIPPED_STEPS = 40
"""fp16 halves its loss scale at each skipped step; from 65536 this many leave no scale at all."""


class NotFiniteError(Exception):
    """A loss or gradient is not a number.

    Attributes:
        what: is not finite.
        batches: their numbers.
    """

    def __init__(self, what: str, batches: list[int]) -> None:
        super().__init__(f"{what} is not finite in batches {batches}")
        self.what = what
        self.batches = batches


@dataclass(frozen=True)
class Measured:
    """Sums over the step's labelled positions, their number, and the norm before clipping."""

    sums: dict[str, float]
    labels: int
    gradient_norm: float


@dataclass(frozen=True)
class StepResult:
    """What a step measured, still on the device.

    Attributes:
        names: of the sums after the objective's.
        batches: numbers of the micro-batches with a label.
        labels: how many positions were trained.
        sums: (M, K).
        norm: of the gradient before clipping.
        skipped: fp16's loss scaling left this step out.
    """

    names: tuple[str, ...]
    batches: list[int]
    labels: int
    sums: torch.Tensor
    norm: torch.Tensor
    skipped: bool = False

    def read(self) -> Measured:
        """The numbers. Of a GPU this waits until the step is done.

        Raises:
            NotFiniteError: one of them is not, in a step that was not left out for that.
        """
        norm, sums_MK = float(self.norm), self.sums.tolist()
        if not self.skipped:
            pairs = zip(self.batches, sums_MK, strict=True)
            bad = [n for n, sums in pairs if not all(map(math.isfinite, sums))]
            if bad or not math.isfinite(norm):
                what = "the loss" if bad else "the gradient norm"
                raise NotFiniteError(what, bad or self.batches)
        totals = [math.fsum(column) for column in zip(*sums_MK, strict=True)]
        sums = dict(zip(self.names, totals[1:] or [0.0] * len(self.names), strict=True))
        return Measured(sums, self.labels, norm)


@dataclass(kw_only=True)
class Step:
    """Computes the steps of a run.

    Attributes:
        loss: with the model in it.
        batches: micro-batches by number.
        micro_batches: of one step.
        clip_norm: largest norm of the gradient.
        skipped: steps in a row that fp16's loss scaling left out.
    """

    loss: LanguageModelLoss
    batches: Callable[[int], HostBatch]
    optimizer: Optimizer
    micro_batches: int
    clip_norm: float
    precision: Precision
    placement: Placement
    skipped: int = 0

    def __post_init__(self) -> None:
        self.scaler = self.precision.scaler()
        self.parameters = [p for p in self.loss.parameters() if p.requires_grad]
        # The scaler makes its tensors when it first scales something; the loss is scaled before
        # it gets there, because its gradients are computed in fp16.
        self.scaler.scale(torch.zeros((), device=self.placement.device))

    def load_scaler(self, state: dict[str, Any]) -> None:
        """Resume with the loss scale of a checkpoint."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)
            self.scaler.scale(torch.zeros((), device=self.placement.device))

    def scaler_state(self) -> dict[str, Any]:
        """The loss scaling's state; empty unless fp16."""
        return dict(self.scaler.state_dict())

    def run(
        self, number: int, learning_rate: float, interrupted: Callable[[], bool]
    ) -> StepResult | None:
        """Do the step of that number, from 0.

        A step without a single label changes nothing. What surprises: on a GPU nothing is waited
        for, so numbers that are not finite come to light when the result is read, after the update.
        Elsewhere, and in fp16, they are read before it.

        Returns:
            What was measured; None if `interrupted` between two micro-batches, with the weights
            as they were.

        Raises:
            NotFiniteError: the loss or a gradient is not finite; the weights are as they were.
        """
        first = number * self.micro_batches
        hosts = {n: self.batches(n) for n in range(first, first + self.micro_batches)}
        labels = sum(host.count for host in hosts.values())
        if not labels:
            nothing = torch.zeros(0, 1 + len(self.loss.names))
            return StepResult(self.loss.names, [], 0, nothing, torch.zeros(()))
        scale = (self.scaler.get_scale() if self.scaler.is_enabled() else 1.0) / labels
        sums_K: dict[int, torch.Tensor] = {}
        for place, host in hosts.items():
            if not host.count:
                continue
            if sums_K and interrupted():
                self.optimizer.zero_grad()
                return None
            inputs = self.placement.place(host)
            objective, sums_K[place] = self.loss(inputs, scale, self.precision)
            objective.backward()
        sums_MK = torch.stack(list(sums_K.values()))
        result = StepResult(self.loss.names, list(sums_K), labels, sums_MK, self._gradient_norm())
        return self._updated(result, learning_rate)

    def _gradient_norm(self) -> torch.Tensor:
        # It reads the parameter groups alone, which a `Combined` has too.
        self.scaler.unscale_(cast(torch.optim.Optimizer, self.optimizer))
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _updated(self, result: StepResult, learning_rate: float) -> StepResult:
        if self.scaler.is_enabled():
            result = self._scaled(result)
        elif self._reads_first(result):
            result.read()
        if not result.skipped:
            self._clip(result.norm)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.scaler.update()
        self.optimizer.zero_grad()
        return result

    def _reads_first(self, result: StepResult) -> bool:
        """Whether the numbers are there without waiting for a GPU."""
        return result.norm.device.type == "cpu"

    def _scaled(self, result: StepResult) -> StepResult:
        """fp16 overflows now and then; its scaler lowers the scale and the step is left out."""
        overflown = False
        try:
            result.read()
        except NotFiniteError:
            if self.skipped >= MOST_SKIPPED_STEPS:
                raise
            overflown = True
        self.skipped = self.skipped + 1 if overflown else 0
        return dataclasses.replace(result, skipped=overflown)

    def _clip(self, norm: torch.Tensor) -> None:
        if norm.device.type == "cpu" and norm <= self.clip_norm:
            return  # the factor is 1, and a pass over all gradients is saved
        torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
