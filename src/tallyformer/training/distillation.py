"""Knowledge distillation: the student learns the teacher's whole distribution.

    loss = alpha * T^2 * KL(teacher_T || student_T) + (1 - alpha) * CE + z-loss

where p_T is the softmax of logits / T. The KL is over the U ids that both models know; both
distributions are normalised over those, so an id that the teacher never learnt pulls nowhere.
Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, sections 2 and 2.1 (the factor T^2).

Shapes: N labelled positions, C positions of a chunk, V student's vocabulary, U shared ids (the
first U of both), K ids that a stored teacher pass holds for a position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import nn

from tallyformer.data.batch import IGNORED
from tallyformer.training.chunked_head import (
    ChunkLoss,
    chunk_length,
    chunked_loss,
    set_entries,
)
from tallyformer.training.compiling import compiled_by_rows
from tallyformer.training.losses import LanguageModelLoss
from tallyformer.training.micro_batch import MicroBatch
from tallyformer.training.precision import Precision

_TENSORS_OF_LOGITS = 4
"""Tensors of the chunk's size that the KL needs besides those of the cross-entropy."""


class DistillationWeights(NamedTuple):
    """The numbers of the loss."""

    temperature: float
    alpha: float
    z_loss: float


class FullTargets(Protocol):
    """A teacher's logits for the labelled positions of one micro-batch."""

    def logits(self, chunk: slice) -> torch.Tensor:
        """(C, U)."""


class StoredTargets(NamedTuple):
    """The stored part of a teacher's distribution at the loss's temperature.

    Attributes:
        ids: (N, K) int64, the teacher's most probable ids, all below U.
        log_p: (N, K) float32, their log-probabilities at temperature T.
        shared: U.
    """

    ids: torch.Tensor
    log_p: torch.Tensor
    shared: int


class TargetSource(Protocol):
    """Where targets come from: a teacher, or its stored pass."""

    def targets(
        self, inputs: MicroBatch, precision: Precision, temperature: float
    ) -> FullTargets | StoredTargets:
        """What the teacher says about the labelled positions of `inputs`."""

    def compile(self, compiled: bool) -> None:
        """Compile the teacher, if it is of our own class; or undo what an earlier run did."""


class DistillationLoss(LanguageModelLoss):
    """The loss above, for the loop; it reports cross-entropy ("loss") and "kl", both unweighted.

    Args:
        model: the student.
        source: gives targets.
        weights: temperature, alpha and the z-loss's coefficient.
        compiled: compile the teacher, and fuse the loss of a chunk into one kernel; otherwise the
            teacher is left uncompiled, whatever an earlier loss made of it.
    """

    names: ClassVar[tuple[str, ...]] = ("loss", "kl")

    def __init__(
        self,
        model: Any,
        source: TargetSource,
        weights: DistillationWeights,
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__(model)
        self.source = source
        self.weights = weights
        source.compile(compiled)
        self.of_logits = distilled(weights, compiled=compiled)

    def forward(
        self, inputs: MicroBatch, scale: float, precision: Precision
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `scale` * loss summed, and the sums of (loss, CE, KL)."""
        targets = self.source.targets(inputs, precision, self.weights.temperature)
        h_ND = self.hidden_states(inputs, precision)
        head = self.head()
        return chunked_loss(
            h_ND,
            head,
            self.of_logits(inputs.labels, targets),
            scale=scale,
            dtype=precision.dtype,
            chunk=chunk_length(
                h_ND.shape[0], _TENSORS_OF_LOGITS * head.weight.shape[0], h_ND.device
            ),
        )


def distilled(
    weights: DistillationWeights, *, compiled: bool = False
) -> Callable[[torch.Tensor, FullTargets | StoredTargets], ChunkLoss]:
    """From labels (N,) and targets to the loss of chunks of logits."""
    full = compiled_by_rows(full_gradient_, compiled)
    bulk = compiled_by_rows(bulk_gradient_, compiled)

    def of_logits(labels_N: torch.Tensor, targets: FullTargets | StoredTargets) -> ChunkLoss:
        if isinstance(targets, StoredTargets):
            return _StoredChunk(labels_N, targets, weights, bulk)
        return _FullChunk(labels_N, targets, weights, full)

    return of_logits


@dataclass(frozen=True)
class _FullChunk:
    labels: torch.Tensor
    targets: FullTargets
    weights: DistillationWeights
    core: Any

    def __call__(
        self, logits_CV: torch.Tensor, chunk: slice, scale: float, *, gradient: bool
    ) -> torch.Tensor:
        w = self.weights
        label = _Label.of(self.labels[chunk], logits_CV)
        teacher_CU = self.targets.logits(chunk)
        shared = teacher_CU.shape[1]
        known_C = label.ids.squeeze(1) < shared
        teacher_label_C = teacher_CU.gather(1, label.ids.clamp_max(shared - 1)).squeeze(1).float()
        lse_C, lse_s_C, lse_t_C, kl_C = self.core(
            logits_CV, teacher_CU, label.counts * scale, weights=w
        )
        s_C = (label.logits / w.temperature - lse_s_C).exp()
        t_C = (teacher_label_C / w.temperature - lse_t_C).exp()
        pull_C = label.pull(lse_C, w) + w.alpha * w.temperature * (s_C - t_C) * known_C
        label.put(logits_CV, pull_C * scale)
        return label.sums(lse_C, kl_C, w)


@dataclass(frozen=True)
class _StoredChunk:
    labels: torch.Tensor
    targets: StoredTargets
    weights: DistillationWeights
    core: Any

    def __call__(
        self, logits_CV: torch.Tensor, chunk: slice, scale: float, *, gradient: bool
    ) -> torch.Tensor:
        w = self.weights
        label = _Label.of(self.labels[chunk], logits_CV)
        ids_CK, log_t_CK = self.targets.ids[chunk], self.targets.log_p[chunk]
        stored_CK = logits_CV.gather(1, ids_CK).float()
        lse_s_C = (logits_CV[:, : self.targets.shared].float() / w.temperature).logsumexp(dim=1)
        log_s_CK = stored_CK / w.temperature - lse_s_C[:, None]
        kl_C, ratio_C = _tail_bucket(log_t_CK, log_s_CK)
        lse_C = self.core(
            logits_CV,
            label.counts * scale,
            lse_s_C,
            ratio_C,
            shared=self.targets.shared,
            weights=w,
        )
        known_C = label.ids.squeeze(1) < self.targets.shared
        s_C = (label.logits / w.temperature - lse_s_C).exp() * (1 - ratio_C) * known_C
        label.put(logits_CV, (label.pull(lse_C, w) + w.alpha * w.temperature * s_C) * scale)
        hot_CK = (ids_CK == label.ids).float()
        spread_CK = (stored_CK - lse_C[:, None]).exp() * _spread(lse_C, w)[:, None]
        pull_CK = spread_CK - (1 - w.alpha) * hot_CK
        pull_CK = pull_CK + w.alpha * w.temperature * (log_s_CK.exp() - log_t_CK.exp())
        pull_CK = pull_CK * (label.counts * scale)[:, None]
        set_entries(logits_CV, ids_CK, pull_CK)
        return label.sums(lse_C, kl_C, w)


class _Label(NamedTuple):
    """The labels of a chunk.

    Attributes:
        ids: (C, 1), 0 where there is none.
        logits: (C,) what the student gives them, float32.
        counts: (C,) 1 where there is a label, else 0.
    """

    ids: torch.Tensor
    logits: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def of(cls, labels_C: torch.Tensor, logits_CV: torch.Tensor) -> _Label:
        id_C1 = labels_C.clamp_min(0).unsqueeze(1)
        logit_C = logits_CV.gather(1, id_C1).squeeze(1).float()
        return cls(id_C1, logit_C, (labels_C != IGNORED).float())

    def pull(self, lse_C: torch.Tensor, w: DistillationWeights) -> torch.Tensor:
        """Derivative of (1 - alpha) * CE + z-loss in the label's logit."""
        return (self.logits - lse_C).exp() * _spread(lse_C, w) - (1 - w.alpha)

    def put(self, gradient_CV: torch.Tensor, pull_C: torch.Tensor) -> None:
        """Set the label's entries, which the cores leave out, to their exact values."""
        set_entries(gradient_CV, self.ids, (pull_C * self.counts).unsqueeze(1))

    def sums(self, lse_C: torch.Tensor, kl_C: torch.Tensor, w: DistillationWeights) -> torch.Tensor:
        """The sums of (loss, CE, KL)."""
        ce = ((lse_C - self.logits) * self.counts).sum()
        kl = (kl_C * self.counts).sum()
        z = w.z_loss * (lse_C.square() * self.counts).sum()
        return torch.stack([w.alpha * w.temperature**2 * kl + (1 - w.alpha) * ce + z, ce, kl])


def _spread(lse_C: torch.Tensor, w: DistillationWeights) -> torch.Tensor:
    """Factor of the softmax in the derivative of (1 - alpha) * CE + z-loss."""
    return 1 - w.alpha + 2 * w.z_loss * lse_C


def full_gradient_(
    student_CV: torch.Tensor,
    teacher_CU: torch.Tensor,
    scale_C: torch.Tensor,
    *,
    weights: DistillationWeights,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Overwrite the student's logits by the loss's gradient, but for the label's -(1 - alpha).

    Returns:
        logsumexp of the student's logits, of logits / T over the shared ids for student and
        teacher, and the KL; each (C,).
    """
    temperature, alpha, z_loss = weights
    shared, vocabulary = teacher_CU.shape[1], student_CV.shape[1]
    wide_CV = student_CV.float()
    lse_C = wide_CV.logsumexp(dim=1)
    log_s_CU = wide_CV[:, :shared] / temperature
    lse_s_C = log_s_CU.logsumexp(dim=1)
    log_s_CU = log_s_CU.sub_(lse_s_C[:, None])
    log_t_CU = teacher_CU.float() / temperature
    lse_t_C = log_t_CU.logsumexp(dim=1)
    log_t_CU = log_t_CU.sub_(lse_t_C[:, None])
    t_CU = log_t_CU.exp()
    kl_C = (log_t_CU.sub_(log_s_CU)).mul_(t_CU).sum(dim=1)
    pull_CU = log_s_CU.exp_().sub_(t_CU).mul_(alpha * temperature)
    spread_C = 1 - alpha + 2 * z_loss * lse_C
    gradient_CV = wide_CV.sub_(lse_C[:, None]).exp_().mul_(spread_C[:, None])
    if shared < vocabulary:
        pull_CU = nn.functional.pad(pull_CU, (0, vocabulary - shared))
    student_CV.copy_(gradient_CV.add_(pull_CU).mul_(scale_C[:, None]))
    return lse_C, lse_s_C, lse_t_C, kl_C


def bulk_gradient_(
    student_CV: torch.Tensor,
    scale_C: torch.Tensor,
    lse_s_C: torch.Tensor,
    ratio_C: torch.Tensor,
    *,
    shared: int,
    weights: DistillationWeights,
) -> torch.Tensor:
    """Overwrite the student's logits by the gradient where no id is stored and none is the label.

    Args:
        ratio_C: the teacher's tail mass over the student's; see `_tail_bucket`.

    Returns:
        logsumexp of the student's logits (C,).
    """
    temperature, alpha, z_loss = weights
    wide_CV = student_CV.float()
    lse_C = wide_CV.logsumexp(dim=1)
    s_CU = (wide_CV[:, :shared] / temperature).sub_(lse_s_C[:, None]).exp_()
    pull_CU = s_CU.mul_((alpha * temperature * (1 - ratio_C))[:, None])
    spread_C = 1 - alpha + 2 * z_loss * lse_C
    gradient_CV = wide_CV.sub_(lse_C[:, None]).exp_().mul_(spread_C[:, None])
    if shared < student_CV.shape[1]:
        pull_CU = nn.functional.pad(pull_CU, (0, student_CV.shape[1] - shared))
    student_CV.copy_(gradient_CV.add_(pull_CU).mul_(scale_C[:, None]))
    return lse_C


def _tail_bucket(
    log_t_CK: torch.Tensor, log_s_CK: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """KL over K ids and one bucket that holds all others, and its tail masses' ratio t / s."""
    t_CK = log_t_CK.exp()
    # The stored float16 numbers may sum up to some 1e-4 above 1; the smallest normal mass keeps the
    # logarithm finite. The student's sum has float32's rounding alone, about 1e-7.
    least = torch.finfo(torch.float32).tiny
    t_tail_C = (1 - t_CK.sum(dim=1)).clamp_min(least)
    s_tail_C = (1 - log_s_CK.exp().sum(dim=1)).clamp_min(1e-7)
    kl_C = (t_CK * (log_t_CK - log_s_CK)).sum(dim=1)
    kl_C = kl_C + t_tail_C * (t_tail_C.log() - s_tail_C.log())
    return kl_C, t_tail_C / s_tail_C
