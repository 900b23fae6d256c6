"""Knowledge distillation: the student learns the teacher's whole distribution.

    loss = alpha * T^2 * KL(teacher_T || student_T) + (1 - alpha) * CE + z-loss

where p_T is the softmax of logits / T. The KL is over the U ids that both models know; both
distributions are normalised over those, so an id that the teacher never learnt pulls nowhere.
Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, sections 2 and 2.1 (the factor T^2).

Shapes: N labelled positions, C positions of one chunk, V student's vocabulary, U shared ids (the
first U of both), K stored ids of one position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from tallyformer.data.batch import IGNORED
from tallyformer.training.chunked_head import chunk_length, chunked_loss
from tallyformer.training.compiling import maybe_compiled
from tallyformer.training.inputs import Inputs
from tallyformer.training.losses import head_weight, hidden_states
from tallyformer.training.precision import Precision

_TENSORS_OF_LOGITS = 4
"""Tensors as large as the chunk's logits that the KL needs besides the cross-entropy's."""


@dataclass(frozen=True)
class Weights:
    """The numbers of the loss."""

    temperature: float
    alpha: float
    z_loss: float


class Targets(Protocol):
    """A teacher's opinion on the labelled positions of one micro-batch."""

    def losses_(
        self, logits_CV: torch.Tensor, labels_C: torch.Tensor, chunk: slice, scale_C: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Overwrite logits by the gradient of the loss and return logsumexp (C,) and KL (C,)."""


class TeacherSource(Protocol):
    """Gives the targets of micro-batches."""

    def targets(self, inputs: Inputs, precision: Precision) -> Targets:
        """What the teacher says about the labelled positions of `inputs`."""


class DistillationLoss:
    """The loss above as the loop's loss; reports cross-entropy ("loss") and "kl", both plain sums.

    Args:
        teacher: gives targets.
        z_loss: coefficient of the student's logsumexp^2; minimised, never reported.
    """

    names: tuple[str, ...] = ("loss", "kl")

    def __init__(self, teacher: TeacherSource, weights: Weights):
        self.teacher = teacher
        self.weights = weights

    def __call__(
        self, model: nn.Module, inputs: Inputs, scale: float, precision: Precision
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `scale` * loss summed, and the sums of (loss, CE, KL)."""
        targets = self.teacher.targets(inputs, precision)
        h_ND = hidden_states(model, inputs, precision)
        weight_VD = head_weight(model)
        return chunked_loss(
            h_ND,
            weight_VD,
            _DistillationChunk(inputs.labels, targets, self.weights),
            scale=scale,
            dtype=precision.dtype,
            chunk=chunk_length(h_ND.shape[0], _TENSORS_OF_LOGITS * weight_VD.shape[0]),
        )


@dataclass(frozen=True)
class _DistillationChunk:
    labels: torch.Tensor
    targets: Targets
    weights: Weights

    def __call__(
        self, logits_CV: torch.Tensor, chunk: slice, scale: float, *, gradient: bool
    ) -> torch.Tensor:
        labels_C = self.labels[chunk]
        counts_C = (labels_C != IGNORED).float()
        labels_C1 = labels_C.clamp_min(0).unsqueeze(1)
        label_logit_C = logits_CV.gather(1, labels_C1).squeeze(1).float()
        lse_C, kl_C = self.targets.losses_(logits_CV, labels_C1, chunk, counts_C * scale)
        alpha, temperature = self.weights.alpha, self.weights.temperature
        ce_C = (lse_C - label_logit_C) * counts_C
        kl_C = kl_C * counts_C
        z_C = self.weights.z_loss * lse_C.square() * counts_C
        objective = alpha * temperature**2 * kl_C.sum() + (1 - alpha) * ce_C.sum() + z_C.sum()
        return torch.stack([objective, ce_C.sum(), kl_C.sum()])
