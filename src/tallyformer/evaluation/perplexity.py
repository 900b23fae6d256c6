"""Cross-entropy of a model on batches, as mean loss, perplexity and bits per byte.

Only the cross-entropy is summed; no z-loss and no other training term can enter. The logits of
a batch never exist whole: slices of positions are taken of our models, rows of any other. Of a
model that cannot keep packed documents apart, each document is computed on its own.

Shapes: B batch, T positions, N positions in one line, D hidden size, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.training.inputs import document_mask, document_positions
from tallyformer.training.packed_call import PackedCall
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
    return sum(
        measure_passages(
            model,
            batches,
            token_bytes,
            precision=precision,
            attend_across_documents=attend_across_documents,
        ),
        TextLoss(),
    )


@torch.inference_mode()
def measure_passages(
    model: Any,
    batches: Iterable[Batch],
    token_bytes: np.ndarray,
    *,
    precision: Precision,
    attend_across_documents: bool = False,
) -> list[TextLoss]:
    """The same of every passage with a label, in order; their sum is `measure_loss`.

    A passage is what a row holds of one document; a whole row with `attend_across_documents`.
    """
    was_training = model.training
    model.eval()
    found: list[TextLoss] = []
    measured = _Measured(model, precision.device)
    for batch in batches:
        if attend_across_documents:
            batch = replace(batch, segments=None)
        if bool((batch.labels != IGNORED).any()):
            found += _passages(batch, _nats(measured, batch, precision), token_bytes)
    model.train(was_training)
    return found


def _passages(batch: Batch, nats_N: np.ndarray, token_bytes: np.ndarray) -> Iterator[TextLoss]:
    """The batch's losses by its passages."""
    labels_N = batch.labels.flatten().numpy()
    rows, context = batch.labels.shape
    row_N = np.repeat(np.arange(rows), context)
    segment_N = np.zeros_like(row_N) if batch.segments is None else batch.segments.flatten().numpy()
    kept = labels_N != IGNORED
    _, passage_K = np.unique(np.stack([row_N[kept], segment_N[kept]]), axis=1, return_inverse=True)
    passage_K = passage_K.reshape(-1)
    columns = nats_N[kept], np.ones(passage_K.size), token_bytes[labels_N[kept]]
    sums = zip(*(np.bincount(passage_K, column) for column in columns), strict=True)
    for nats, tokens, size in sums:
        yield TextLoss(float(nats), int(tokens), int(size))


def _nats(measured: _Measured, batch: Batch, precision: Precision) -> np.ndarray:
    """Cross-entropy (N,) of all positions in one line, in nats as float64; 0 without a label."""
    found: list[torch.Tensor] = []
    for part in measured.parts(batch):
        labels_N = part.labels.flatten().to(precision.device)
        with precision.autocast():
            for begin, logits_NV in measured.logits(part):
                labels = labels_N[begin : begin + len(logits_NV)]
                found.append(
                    functional.cross_entropy(
                        logits_NV.float(), labels, ignore_index=IGNORED, reduction="none"
                    ).double()
                )
    nats: np.ndarray = torch.cat(found).cpu().numpy()
    return nats


class _Measured:
    """A model of any class, and the way in which it is called."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.ours = isinstance(model, TallyFormerForCausalLM)
        self.vocabulary = model.get_output_embeddings().weight.shape[0]
        self.call = PackedCall(model.base_model if self.ours else model, self.vocabulary)

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """What is computed at a time: the batch, its rows, or its documents."""
        if self.ours:
            yield batch
            return
        for row in range(len(batch.input_ids)):
            whole = slice(0, batch.input_ids.shape[1])
            if batch.segments is None:
                yield _cut(batch, row, whole)
            elif self.call.isolates:
                yield replace(_cut(batch, row, whole), segments=batch.segments[row : row + 1])
            else:
                for document in _documents(batch.segments[row]):
                    yield _cut(batch, row, document)

    def logits(self, part: Batch) -> Iterator[tuple[int, torch.Tensor]]:
        """Slices (N, V) of the logits of all positions in one line, and where each begins.

        Of a foreign model, whose logits may be more than head times hidden state, all at once.
        """
        mask = positions = None
        if part.segments is not None:
            segments_BT = part.segments.to(self.device)
            mask, positions = document_mask(segments_BT), document_positions(segments_BT)
        output_NX = self.call(part.input_ids.to(self.device), mask, positions).flatten(0, 1)
        if not self.ours:
            yield 0, output_NX
            return
        step = max(1, LOGITS_AT_ONCE // self.vocabulary)
        for begin in range(0, len(output_NX), step):
            yield begin, self.model.lm_head(output_NX[begin : begin + step])


def _cut(batch: Batch, row: int, places: slice) -> Batch:
    """Some positions of one row, as one document."""
    return Batch(batch.input_ids[row, places][None], batch.labels[row, places][None], None)


def _documents(segments_T: torch.Tensor) -> Iterator[slice]:
    """Where each document of a row lies."""
    begin = 0
    for _, of_document in itertools.groupby(segments_T.tolist()):
        end = begin + len(list(of_document))
        yield slice(begin, end)
        begin = end
