"""What the training loop is fed.

B rows of a batch, T positions of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

IGNORED = -100
"""Label of a position that is not trained; torch's cross-entropy skips it."""


@dataclass(frozen=True)
class Batch:
    """Ids, what follows each of them, and who may see whom.

    Attributes:
        input_ids: int64 (B, T).
        labels: int64 (B, T); labels[b, t] is the id that follows input_ids[b, t], -100 where
            nothing is to be predicted. They are shifted already.
        segments: int32 (B, T) or None. Attention is causal and only between positions of equal
            number; None allows all earlier positions of the row.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    segments: torch.Tensor | None


class BatchSource(Protocol):
    """Batches by number. The same number always gives the same batch, in any process."""

    @property
    def batches_per_epoch(self) -> int:
        """Batches after which everything has been seen once; numbers may go beyond."""

    @property
    def tokens_per_batch(self) -> int:
        """Positions of one batch, B * T."""

    def batch(self, index: int) -> Batch:
        """The batch of that number, 0 or more."""

    def documents(self, index: int) -> list[str]:
        """Names of the documents in that batch, for error messages."""
