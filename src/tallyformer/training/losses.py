"""The next-token loss: cross-entropy, with z-loss beside it.

A loss is one module with the model in it: its body, the head a chunk at a time, and what is made of
the logits. Training, validation and evaluation call the same one.

Shapes: B batch, T positions, N labelled positions, C positions of a chunk, D hidden, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from tallyformer.data.batch import IGNORED
from tallyformer.training.chunked_head import ChunkLoss, Head, chunked_loss, set_entries
from tallyformer.training.compiling import compiled_by_rows
from tallyformer.training.document_attention import DocumentAttention
from tallyformer.training.micro_batch import MicroBatch
from tallyformer.training.precision import Precision


class LanguageModelLoss(nn.Module, ABC):
    """What the loop minimises: a causal language model and a loss of its logits.

    Args:
        model: has `model`, the body, and an output head.

    Attributes:
        names: of the sums after the first, which is the objective; "loss" is the cross-entropy.
    """

    names: ClassVar[tuple[str, ...]] = ("loss",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._documents = DocumentAttention(model)
        self._row_ids: torch.Tensor | None = None

    @abstractmethod
    def forward(
        self, inputs: MicroBatch, scale: float, precision: Precision
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `scale` times the objective's sum, to be differentiated, and all sums (K,)."""

    def hidden_states(self, inputs: MicroBatch, precision: Precision) -> torch.Tensor:
        """Hidden states (N, D) of the labelled positions after the final norm."""
        body: Any = self.model.model
        how = self._documents.arguments(inputs, precision) or {"attention_mask": inputs.mask}
        with precision.autocast():
            output = body(inputs.ids, use_cache=False, **how)
        h_ND: torch.Tensor = output.last_hidden_state.flatten(0, 1)
        return h_ND if inputs.rows is None else h_ND[inputs.rows]

    def head(self) -> Head:
        """The model's output matrix. Which rows are trained alone is copied to the device once."""
        head = output_head(self.model, self._row_ids)
        self._row_ids = head.row_ids
        return head

    @torch.no_grad()
    def nats(self, inputs: MicroBatch, precision: Precision) -> torch.Tensor:
        """The cross-entropy (N,) of each labelled position in nats, float32; 0 without a label."""
        h_ND, head = self.hidden_states(inputs, precision), self.head()
        record = _Record(inputs.labels, torch.zeros(len(h_ND), device=h_ND.device))
        chunked_loss(h_ND, head, record, scale=1.0, dtype=precision.dtype)
        return record.nats


def output_head(model: Any, row_ids: torch.Tensor | None = None) -> Head:
    """The output matrix of a causal language model, and which rows of it are trained alone.

    Args:
        row_ids: those rows, from an earlier call.
    """
    head = model.get_output_embeddings()
    adapter = getattr(head, "token_adapter", None)
    if adapter is None:
        return Head(head.weight)
    (name,) = head.active_adapters
    weight = adapter.base_layer.weight
    if row_ids is None:
        row_ids = torch.tensor(adapter.token_indices[name], device=weight.device)
    return Head(weight, adapter.trainable_tokens_delta[name], row_ids)


class NextTokenLoss(LanguageModelLoss):
    """Cross-entropy of the next token + z_loss * logsumexp^2, over labelled positions.

    The z-loss keeps the logits' normaliser near 1 (Chowdhery et al. 2022, PaLM,
    https://arxiv.org/abs/2204.02311, section 5). It is minimised, never reported.

    Args:
        model: as of `LanguageModelLoss`.
        z_loss: its coefficient.
        compiled: fuse the loss of a chunk into one kernel.
    """

    def __init__(self, model: Any, z_loss: float = 0.0, *, compiled: bool = False) -> None:
        super().__init__(model)
        self.of_logits = next_token(z_loss, compiled=compiled)

    def forward(
        self, inputs: MicroBatch, scale: float, precision: Precision
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `scale` * (CE + z-loss) summed, and the sums of (CE + z-loss, CE)."""
        h_ND = self.hidden_states(inputs, precision)
        loss = self.of_logits(inputs.labels)
        return chunked_loss(h_ND, self.head(), loss, scale=scale, dtype=precision.dtype)


def next_token(z_loss: float, *, compiled: bool = False) -> Callable[[torch.Tensor], ChunkLoss]:
    """From labels (N,) to the loss of chunks of logits; arguments as of `NextTokenLoss`."""
    core = compiled_by_rows(softmax_gradient_, compiled)
    return lambda labels_N: _NextTokenChunk(labels_N, z_loss, core)


@dataclass(frozen=True)
class _Record:
    """Notes the cross-entropy of each position; it has no gradient."""

    labels: torch.Tensor
    nats: torch.Tensor

    def __call__(
        self, logits_CV: torch.Tensor, chunk: slice, scale: float, *, gradient: bool
    ) -> torch.Tensor:
        assert not gradient
        labels_C = self.labels[chunk]
        label_logit_C = logits_CV.gather(1, labels_C.clamp_min(0).unsqueeze(1)).squeeze(1).float()
        ce_C = logits_CV.float().logsumexp(dim=1) - label_logit_C
        self.nats[chunk] = ce_C * (labels_C != IGNORED)
        return self.nats[chunk].sum().unsqueeze(0)


@dataclass(frozen=True)
class _NextTokenChunk:
    labels: torch.Tensor
    z_loss: float
    core: Any

    def __call__(
        self, logits_CV: torch.Tensor, chunk: slice, scale: float, *, gradient: bool
    ) -> torch.Tensor:
        labels_C = self.labels[chunk]
        counts_C = (labels_C != IGNORED).float()
        labels_C1 = labels_C.clamp_min(0).unsqueeze(1)
        label_logit_C = logits_CV.gather(1, labels_C1).squeeze(1).float()
        if gradient:
            lse_C = self.core(logits_CV, counts_C * scale, self.z_loss)
            pull_C = (label_logit_C - lse_C).exp() * (1 + 2 * self.z_loss * lse_C) - 1
            set_entries(logits_CV, labels_C1, (pull_C * counts_C * scale).unsqueeze(1))
        else:
            lse_C = logits_CV.float().logsumexp(dim=1)
        ce_C = (lse_C - label_logit_C) * counts_C
        z_C = self.z_loss * lse_C.square() * counts_C
        return torch.stack([(ce_C + z_C).sum(), ce_C.sum()])


def softmax_gradient_(
    logits_CV: torch.Tensor, scale_C: torch.Tensor, z_loss: float
) -> torch.Tensor:
    """Overwrite logits by `scale` * d(lse + z_loss * lse^2)/d logits and return lse (C,).

    That is the loss's gradient but for the label's -1, which the caller sets exactly.
    """
    wide_CV = logits_CV.float()
    lse_C = wide_CV.logsumexp(dim=1)
    factor_C = scale_C * (1 + 2 * z_loss * lse_C)
    logits_CV.copy_(wide_CV.sub_(lse_C[:, None]).exp_().mul_(factor_C[:, None]))
    return lse_C
