"""Packed sequences without padding, drawn from the shards' token streams.

Sequence i of a stream covers ids [i*T, i*T + T + 1): T inputs and the label of the last one. The
end-of-text of a document, as an input, belongs to the document that follows it: it is predicted
by the document before and starts the next one. So every position is trained.

B rows of a batch, T positions of a row, N sequences of one source in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.data.mixture import Epoch, MixtureOrder, epoch_shares, rounded
from tallyformer.data.shards import TokenStream
from tallyformer.errors import DataError


class PackedBatches:
    """Training batches from a mixture of sources (a `BatchSource`).

    An epoch is one pass over the mixture: as many sequences as the sources with a weight have
    together, each source with its share by weight. Batches continue across the end of an epoch, so
    nothing is left out.

    Args:
        streams: token streams by source.
        context: T, inputs of a row.
        batch_size: B, rows of a batch.
        seed: decides the order.
        weights: shares of the tokens; None keeps the sources' natural proportions. A source
            that is not named takes no part.
        isolate_documents: give segments, so that no document attends to another.

    Raises:
        DataError: a source that takes part has no whole sequence.
    """

    def __init__(
        self,
        streams: Mapping[str, TokenStream],
        *,
        context: int,
        batch_size: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
        isolate_documents: bool = True,
    ) -> None:
        tokens = {name: stream.tokens for name, stream in streams.items()}
        self._epoch = Epoch.of(tokens, context, weights)
        self._streams = [streams[name] for name in self._epoch.shares]
        self._order = MixtureOrder(
            list(self._epoch.sequences.values()), list(self._epoch.shares.values()), seed
        )
        self._context = context
        self._batch_size = batch_size
        self._isolate = isolate_documents

    @property
    def batches_per_epoch(self) -> int:
        """Batches that hold one epoch; the last one may reach into the next epoch."""
        return -(-self._epoch.length // self._batch_size)

    @property
    def tokens_per_batch(self) -> int:
        """B * T."""
        return self._batch_size * self._context

    def batch(self, index: int) -> Batch:
        """Rows [index * B, index * B + B) of the endless run."""
        sources_B, sequences_B = self._rows(index)
        ids = np.empty((self._batch_size, self._context + 1), dtype=np.int64)
        for source in np.unique(sources_B).tolist():
            here = sources_B == source
            starts_N = sequences_B[here] * self._context
            ids[here] = self._streams[source].gather(starts_N, self._context + 1)
        return _as_batch(ids, self._streams[0].eot_id, self._isolate)

    def documents(self, index: int) -> list[str]:
        """Names of the documents in a batch, each once."""
        names: dict[str, None] = {}
        for source, sequence in zip(*(a.tolist() for a in self._rows(index)), strict=True):
            start = sequence * self._context
            found = self._streams[source].documents(start, self._context + 1)
            names.update(dict.fromkeys(found))
        return list(names)

    def epochs_by_source(self, total_epochs: float) -> dict[str, float]:
        """How often each source's sequences are seen in a run of this many epochs."""
        return self._epoch.passes(total_epochs * self._epoch.length)

    def _rows(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        first = index * self._batch_size
        return self._order.locate(np.arange(first, first + self._batch_size))


class ValidationBatches:
    """Validation batches in a fixed order (a `BatchSource`).

    Of each source it takes its share (natural, or by weight) of at most `max_tokens` ids, in
    sequences spread evenly over the source. A source's last, shorter sequence is padded, and so
    is the last batch; padding has label -100.

    Args:
        streams: token streams by source.
        context: T, inputs of a row.
        batch_size: B, rows of a batch.
        max_tokens: at most this many positions in all, but at least one sequence of each source.
        weights: shares of the tokens; None keeps the natural proportions.
        source: take this source alone.
        isolate_documents: give segments, so that no document attends to another.

    Raises:
        DataError: there is not a single position to predict.
    """

    def __init__(
        self,
        streams: Mapping[str, TokenStream],
        *,
        context: int,
        batch_size: int,
        max_tokens: int,
        weights: Mapping[str, float] | None = None,
        source: str | None = None,
        isolate_documents: bool = True,
    ) -> None:
        chosen = dict(streams) if source is None else {source: streams[source]}
        if source is not None:
            weights = None
        sequences = {n: -(-max(0, s.tokens - 1) // context) for n, s in chosen.items()}
        sequences = {n: count for n, count in sequences.items() if count}
        rows = _validation_rows(sequences, weights, max(1, max_tokens // context))
        if not rows:
            named = f"source {source!r}" if source else "every source"
            raise DataError(
                f"validation: {named} is empty. Raise prepare.validation_fraction, or give "
                "prepare more documents"
            )
        self._rows = [(chosen[name], number) for name, number in rows]
        self._context = context
        self._batch_size = batch_size
        self._isolate = isolate_documents

    @property
    def batches_per_epoch(self) -> int:
        """Batches that hold all of it; there are no others."""
        return -(-len(self._rows) // self._batch_size)

    @property
    def tokens_per_batch(self) -> int:
        """B * T."""
        return self._batch_size * self._context

    def batch(self, index: int) -> Batch:
        """The batch of that number, below `batches_per_epoch`."""
        rows = self._of_batch(index)
        eot = rows[0][0].eot_id
        ids = np.full((self._batch_size, self._context + 1), eot, dtype=np.int64)
        lengths = np.zeros(self._batch_size, dtype=np.int64)
        for row, (stream, number) in enumerate(rows):
            start = number * self._context
            lengths[row] = min(self._context + 1, stream.tokens - start)
            ids[row, : lengths[row]] = stream.gather(np.array([start]), int(lengths[row]))[0]
        batch = _as_batch(ids, eot, self._isolate)
        beyond = torch.arange(1, self._context + 1) >= torch.from_numpy(lengths)[:, None]
        return Batch(batch.input_ids, batch.labels.masked_fill(beyond, IGNORED), batch.segments)

    def documents(self, index: int) -> list[str]:
        """Names of the documents in a batch, each once."""
        names: dict[str, None] = {}
        for stream, number in self._of_batch(index):
            found = stream.documents(number * self._context, self._context + 1)
            names.update(dict.fromkeys(found))
        return list(names)

    def _of_batch(self, index: int) -> list[tuple[TokenStream, int]]:
        if not 0 <= index < self.batches_per_epoch:
            raise ValueError(f"validation batch {index}; there are {self.batches_per_epoch}")
        return self._rows[index * self._batch_size : (index + 1) * self._batch_size]


def _validation_rows(
    sequences: Mapping[str, int], weights: Mapping[str, float] | None, limit: int
) -> list[tuple[str, int]]:
    """Which sequences of which source are measured, spread evenly over each source."""
    shares = epoch_shares(sequences, weights)
    total = sum(shares.values())
    limit = min(limit, total)
    wanted = rounded({name: share * limit / total for name, share in shares.items()}, limit)
    rows: list[tuple[str, int]] = []
    for name, most in wanted.items():
        count = min(most, sequences[name])
        rows += [(name, i * sequences[name] // count) for i in range(count)]
    return rows


def _as_batch(ids_BL: np.ndarray, eot_id: int, isolate: bool) -> Batch:
    inputs = torch.from_numpy(ids_BL[:, :-1].copy())
    labels = torch.from_numpy(ids_BL[:, 1:].copy())
    segments = torch.cumsum(inputs == eot_id, dim=1, dtype=torch.int32) if isolate else None
    return Batch(inputs, labels, segments)
