"""Validation: mean cross-entropy, perplexity and bits per byte of a fixed set of batches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.training.inputs import Placement
from tallyformer.training.losses import NextTokenLoss
from tallyformer.training.precision import Precision


@dataclass(frozen=True)
class Validation:
    """Result of one validation.

    Attributes:
        loss: mean cross-entropy in nats a token.
        tokens: labelled positions.
        bits_per_byte: bits needed for a byte of the text; comparable between tokenizers.
    """

    loss: float
    tokens: int
    bits_per_byte: float

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))


def validate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    precision: Precision,
    placement: Placement,
    token_bytes: np.ndarray,
) -> Validation:
    """Loss on `batches`, without dropout; the model's mode is put back afterwards.

    Args:
        batches: taken one by one, so that the caller can show progress, or stop.
        token_bytes: (V,) UTF-8 bytes each id stands for.
    """
    loss = NextTokenLoss()
    was_training = model.training
    model.eval()
    nats, tokens, text_bytes = 0.0, 0, 0
    try:
        with torch.no_grad():
            for batch in batches:
                labels = batch.labels[batch.labels != IGNORED]
                if not labels.numel():
                    continue
                _, sums = loss(model, placement(batch), 1.0, precision)
                nats += float(sums[1])
                tokens += labels.numel()
                text_bytes += int(token_bytes[labels.numpy()].sum())
    finally:
        model.train(was_training)
    if not tokens:
        raise ValueError("a validation source without labels")
    return Validation(nats / tokens, tokens, nats / math.log(2) / max(1, text_bytes))
