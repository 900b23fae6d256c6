"""Cross-entropy of a model on batches, as mean loss, perplexity and bits per byte.

Only the cross-entropy is summed; no z-loss and no other training term can enter. The logits of
a batch never exist whole: slices of positions are taken of our models, rows of any other. Of a
model that cannot keep packed documents apart, each document is computed on its own.

Shapes: B batch, T positions, N positions in one line, D hidden size, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.training.losses import NextTokenLoss
from tallyformer.training.micro_batch import Placement, document_mask, document_positions
from tallyformer.training.packed_call import PackedCall
from tallyformer.training.precision import Precision
from tallyformer.training.validation import TextLoss


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
    ours = isinstance(model, TallyFormerForCausalLM)
    measured = _Ours(model, precision) if ours else _Foreign(model, precision)
    for batch in batches:
        if attend_across_documents:
            batch = replace(batch, segments=None)
        if bool((batch.labels != IGNORED).any()):
            found += _passages(batch, measured.nats(batch).numpy(), token_bytes)
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


class _Ours:
    """A model of ours, measured as training measures it."""

    def __init__(self, model: TallyFormerForCausalLM, precision: Precision) -> None:
        self._loss = NextTokenLoss(model)
        self._place = Placement(precision.device)
        self._precision = precision

    def nats(self, batch: Batch) -> torch.Tensor:
        """Cross-entropy (N,) of all positions in one line; 0 without a label."""
        inputs = self._place(batch)
        nats_N = self._loss.nats(inputs, self._precision).cpu().double()
        if inputs.rows is None:
            return nats_N
        return nats_N.new_zeros(batch.labels.numel()).index_copy(0, inputs.rows.cpu(), nats_N)


class _Foreign:
    """A model of any other class, whose logits may be more than head times hidden state."""

    def __init__(self, model: Any, precision: Precision) -> None:
        self._precision = precision
        self._call = PackedCall(model, model.get_output_embeddings().weight.shape[0])

    def nats(self, batch: Batch) -> torch.Tensor:
        """Cross-entropy (N,) of all positions in one line; 0 without a label."""
        return torch.cat([self._of_part(part) for part in self._parts(batch)])

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """What is computed at a time: the batch's rows, or their documents."""
        for row in range(len(batch.input_ids)):
            whole = slice(0, batch.input_ids.shape[1])
            if batch.segments is None:
                yield _cut(batch, row, whole)
            elif self._call.isolates:
                yield replace(_cut(batch, row, whole), segments=batch.segments[row : row + 1])
            else:
                for document in _documents(batch.segments[row]):
                    yield _cut(batch, row, document)

    def _of_part(self, part: Batch) -> torch.Tensor:
        device = self._precision.device
        mask = positions = None
        if part.segments is not None:
            segments_BT = part.segments.to(device)
            mask, positions = document_mask(segments_BT), document_positions(segments_BT)
        with self._precision.autocast():
            logits_NV = self._call(part.input_ids.to(device), mask, positions).flatten(0, 1)
        labels_N = part.labels.flatten().to(device)
        return (
            functional.cross_entropy(
                logits_NV.float(), labels_N, ignore_index=IGNORED, reduction="none"
            )
            .cpu()
            .double()
        )


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
