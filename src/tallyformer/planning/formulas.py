"""Memory and time of a training by formula, before anything has been tried.

Time: the training's FLOPs over what matrix products reach on this device now, times the share of it
that a training usually gets. Memory: weights, gradients and moments of what is trained, the values
that the backward pass needs, and what the interpreter and its libraries take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tallyformer.model.device import choose_device
from tallyformer.planning.planned import Needs, PlannedTraining
from tallyformer.training.hardware import peak_flops
from tallyformer.training.precision import choose_precision

_REACHED = {"cpu": 0.5, "cuda": 0.3}
"""Share of the matrix products' speed that whole training steps get."""
_FORWARD_SHARE = 3
"""A validation token costs the forward pass alone, 1/3 of a training token."""
_TRAINED_BYTES, _FROZEN_BYTES = 16, 4
"""Float32 bytes a parameter: weight, gradient and AdamW's two moments; weight alone."""
_PROCESS_MB = {"cpu": 480.0, "cuda": 2500.0}
"""Resident memory of Python with torch and transformers, and with CUDA's libraries."""
_GPU_MB = 500.0
"""Kernels' workspaces."""


class Formulas:
    """What this machine will need for a training."""

    def __init__(self) -> None:
        self._device = choose_device()
        self._rates: dict[torch.dtype, float] = {}

    def needs(self, training: PlannedTraining) -> Needs:
        """Memory and time of a training; the time is None if its length is unknown."""
        return Needs(*self._memory(training), self.seconds(training, worked_tokens(training)))

    def seconds(self, training: PlannedTraining, tokens: float | None) -> float | None:
        """Time for this many tokens."""
        if tokens is None:
            return None
        flops = training.flops_per_token + training.teacher_flops_per_token
        return tokens * flops / self._rate(training)

    def _rate(self, training: PlannedTraining) -> float:
        dtype = choose_precision(training.section.precision, self._device).dtype
        if dtype not in self._rates:
            self._rates[dtype] = peak_flops(self._device, dtype)
        return self._rates[dtype] * _REACHED.get(self._device.type, 0.3)

    def _memory(self, training: PlannedTraining) -> tuple[float, float | None]:
        frozen = training.parameters - training.trained_parameters + training.teacher_parameters
        rows = training.section.micro_batch * training.context
        needed = (
            _TRAINED_BYTES * training.trained_parameters
            + _FROZEN_BYTES * frozen
            + rows * training.activation_bytes
        ) / 1e6
        process = _PROCESS_MB.get(self._device.type, 480.0) + training.mapped_mb
        if self._device.type == "cuda":
            return process, needed + _GPU_MB
        return process + needed, None


def worked_tokens(training: PlannedTraining) -> float | None:
    """Training tokens, and those of validation as far as they cost the same."""
    if training.tokens is None:
        return None
    validated = training.section.evaluations * training.validation_tokens
    return training.tokens + validated / _FORWARD_SHARE


def slower_than_formula(
    trainings: Sequence[PlannedTraining],
    guessed: Mapping[str, Needs],
    measured: Mapping[str, Needs],
) -> float:
    """How many times the formula's time those trainings take that were measured; 1 if none was."""
    both = [
        (measured[t.name].seconds, guessed[t.name].seconds) for t in trainings if t.name in measured
    ]
    known = [(found, guess) for found, guess in both if found and guess]
    if not known:
        return 1.0
    return sum(found for found, _ in known) / sum(guess for _, guess in known)
