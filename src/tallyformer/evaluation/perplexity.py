"""Cross-entropy of a model on batches, as mean loss, perplexity and bits per byte.

Only the cross-entropy is summed; no z-loss and no other training term can enter. The logits of
a batch never exist whole: slices of positions are taken of our models, rows of any other.

Shapes: B batch, T positions, N labelled positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.training.inputs import document_mask, document_positions
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
    rows_at_once = len(batch.input_ids) if isinstance(model, TallyFormerForCausalLM) else 1
    total = torch.zeros((), dtype=torch.float64, device=precision.device)
    for first in range(0, len(batch.input_ids), rows_at_once):
        part = slice(first, first + rows_at_once)
        segments = None if across or batch.segments is None else batch.segments[part]
        inputs = _inputs(batch.input_ids[part], segments, precision.device)
        labels_N = batch.labels[part].flatten().to(precision.device)
        with precision.autocast():
            for begin, logits_NV in _logits(model, inputs):
                labels = labels_N[begin : begin + len(logits_NV)]
                total += functional.cross_entropy(
                    logits_NV.float(), labels, ignore_index=IGNORED, reduction="sum"
                ).double()
    return total


def _inputs(
    ids_BT: torch.Tensor, segments_BT: torch.Tensor | None, device: torch.device
) -> dict[str, Any]:
    """What the model is called with; documents are kept apart by mask and positions."""
    inputs: dict[str, Any] = {"input_ids": ids_BT.to(device), "use_cache": False}
    if segments_BT is not None:
        segments_BT = segments_BT.to(device)
        inputs["attention_mask"] = document_mask(segments_BT)
        inputs["position_ids"] = document_positions(segments_BT)
    return inputs


def _logits(model: Any, inputs: dict[str, Any]) -> Iterator[tuple[int, torch.Tensor]]:
    """Slices (N, V) of the logits of all positions in one line, and where each begins.

    Of a foreign model, whose logits may be more than head times hidden state, all at once.
    """
    if not isinstance(model, TallyFormerForCausalLM):
        yield 0, model(**inputs).logits.flatten(0, 1)
        return
    h_ND = model.model(**inputs).last_hidden_state.flatten(0, 1)
    step = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    for begin in range(0, len(h_ND), step):
        yield begin, model.lm_head(h_ND[begin : begin + step])
