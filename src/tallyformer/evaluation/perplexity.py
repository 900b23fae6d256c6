"""Cross-entropy of a model on batches, as mean loss, perplexity and bits per byte.

Only the cross-entropy is summed; no z-loss and no other training term can enter. The logits of
a batch never exist whole.

Shapes: B batch, T positions, N labelled positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.training.inputs import document_mask
from tallyformer.training.precision import Precision

LOGITS_AT_ONCE = 2**24
"""Logits held at one time: 64 MB in float32."""


@dataclass(frozen=True)
class TextLoss:
    """Summed cross-entropy over predicted tokens.

    Attributes:
        nats: sum of -ln p(token).
        tokens: how many were predicted, ends of text included.
        bytes: UTF-8 bytes that these tokens stand for; an end of text stands for none.
    """

    nats: float = 0.0
    tokens: int = 0
    bytes: int = 0

    def __add__(self, other: TextLoss) -> TextLoss:
        return TextLoss(
            self.nats + other.nats, self.tokens + other.tokens, self.bytes + other.bytes
        )

    @property
    def mean(self) -> float:
        """Nats per token; NaN without tokens."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp of the mean; infinite where that overflows."""
        try:
            return math.exp(self.mean)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte, comparable between tokenizers; NaN without bytes."""
        return self.nats / math.log(2) / self.bytes if self.bytes else math.nan


@torch.inference_mode()
def measure_loss(
    model: Any,
    batches: Iterable[Batch],
    token_bytes: np.ndarray,
    *,
    precision: Precision,
    attend_across_documents: bool = False,
) -> TextLoss:
    """Cross-entropy of a causal language model over every labelled position of `batches`.

    Args:
        model: a transformers causal language model on the device; its mode is put back afterwards.
        batches: labels are shifted already; -100 is not counted.
        token_bytes: UTF-8 bytes of each id, int (V,).
        precision: number format of the matrix products, and the model's device.
        attend_across_documents: let documents of a row see each other, as in a training that did.
    """
    was_training = model.training
    model.eval()
    total = TextLoss()
    for batch in batches:
        labels = batch.labels[batch.labels != IGNORED].numpy()
        if labels.size:
            nats = float(_nats(model, batch, precision, attend_across_documents))
            total += TextLoss(nats, int(labels.size), int(token_bytes[labels].sum()))
    model.train(was_training)
    return total


def _nats(model: Any, batch: Batch, precision: Precision, across: bool) -> torch.Tensor:
    """Summed cross-entropy in nats, added up in float64."""
    device = precision.device
    mask = None
    if batch.segments is not None and not across:
        mask = document_mask(batch.segments.to(device))
    rows_N = (batch.labels.flatten() != IGNORED).nonzero().squeeze(1)
    labels_N = batch.labels.flatten()[rows_N].to(device)
    head = model.get_output_embeddings()
    step = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
    total = torch.zeros((), dtype=torch.float64, device=device)
    with precision.autocast():
        body = model.base_model(batch.input_ids.to(device), attention_mask=mask, use_cache=False)
        h_ND = body.last_hidden_state.flatten(0, 1)[rows_N.to(device)]
        for start in range(0, h_ND.shape[0], step):
            logits_NV = head(h_ND[start : start + step]).float()
            part = functional.cross_entropy(
                logits_NV, labels_N[start : start + step], reduction="sum"
            )
            total += part.double()
    return total
