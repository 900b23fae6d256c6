"""Text of pretraining between the conversations, so that fine-tuning does not forget it."""

from __future__ import annotations

import math

import torch

from tallyformer.data.batch import Batch, BatchSource


def batches_with_replay(rows: int, share: float, batch_size: int) -> int:
    """Batches of an epoch.

    Args:
        rows: of conversations.
        share: of all rows that are text, below 1.
        batch_size: B, rows of a batch.
    """
    return -(-math.ceil(rows / (1 - share)) // batch_size)


class ReplayBatches:
    """Rows of two sources, evenly mixed (a `BatchSource`).

    Of the first n rows of the endless run, floor(n * share) are text. An epoch is one pass over
    the conversations.

    Args:
        conversations: a source of one row a batch.
        text: the same of packed text, with the same number of positions a row.
        share: of all rows, above 0 and below 1, that are text.
        batch_size: B, rows of a batch.
    """

    def __init__(
        self, conversations: BatchSource, text: BatchSource, *, share: float, batch_size: int
    ) -> None:
        assert conversations.tokens_per_batch == text.tokens_per_batch
        self._conversations = conversations
        self._text = text
        self._share = share
        self._batch_size = batch_size

    @property
    def batches_per_epoch(self) -> int:
        """Batches that hold every conversation once."""
        rows = self._conversations.batches_per_epoch
        return batches_with_replay(rows, self._share, self._batch_size)

    @property
    def tokens_per_batch(self) -> int:
        """B * T, padding included."""
        return self._batch_size * self._text.tokens_per_batch

    def batch(self, index: int) -> Batch:
        """Rows [index * B, index * B + B) of the endless run."""
        rows = [source.batch(number) for source, number in self._rows(index)]
        ids, labels, segments = (
            torch.cat([getattr(row, name) for row in rows])
            for name in ("input_ids", "labels", "segments")
        )
        return Batch(ids, labels, segments)

    def documents(self, index: int) -> list[str]:
        """Names of the conversations and documents in a batch."""
        return [name for source, number in self._rows(index) for name in source.documents(number)]

    def _rows(self, index: int) -> list[tuple[BatchSource, int]]:
        return [
            self._row(i) for i in range(index * self._batch_size, (index + 1) * self._batch_size)
        ]

    def _row(self, number: int) -> tuple[BatchSource, int]:
        before, after = (math.floor(n * self._share) for n in (number, number + 1))
        return (self._text, before) if after > before else (self._conversations, number - before)
