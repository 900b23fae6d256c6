"""Cross-entropy over text: mean, perplexity and bits per byte; and how a run validates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.training.losses import LanguageModelLoss
from tallyformer.training.micro_batch import Placement
from tallyformer.training.precision import Precision


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

    def values(self) -> dict[str, float | None]:
        """For a record: "loss", "perplexity" and "bits_per_byte"; None where there is no number."""
        found = {
            "loss": self.mean,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
        }
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


def validate(
    loss: LanguageModelLoss,
    batches: Iterable[Batch],
    *,
    precision: Precision,
    placement: Placement,
    token_bytes: np.ndarray,
) -> TextLoss:
    """Cross-entropy on `batches`, without dropout; the model's mode is put back afterwards.

    Args:
        batches: taken one by one, so that the caller can show progress, or stop.
        token_bytes: (V,) UTF-8 bytes each id stands for.
    """
    was_training = loss.model.training
    loss.eval()
    nats, tokens, text_bytes = 0.0, 0, 0
    try:
        for batch in batches:
            labels = batch.labels[batch.labels != IGNORED]
            if not labels.numel():
                continue
            nats += float(loss.nats(placement(batch), precision).cpu().double().sum())
            tokens += labels.numel()
            text_bytes += int(token_bytes[labels.numpy()].sum())
    finally:
        loss.train(was_training)
    if not tokens:
        raise ValueError("a validation source without labels")
    return TextLoss(nats, tokens, text_bytes)
