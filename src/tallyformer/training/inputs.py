"""From a batch to what the model and the head are given.

Shapes: B batch, T positions, N positions with a label (all rows of the batch in one line).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from tallyformer.data.batch import Batch

IGNORED = -100
"""The label of a position that is not trained."""


@dataclass(frozen=True)
class Inputs:
    """One micro-batch on the device.

    Attributes:
        ids_BT: token ids.
        mask_B1TT: True where a query may attend; None is plain causal attention.
        labels_N: the labels that count, in row-major order.
        rows_N: their places in the flattened batch; None if every position counts.
        positions_BT: positions counted from the start of each document, or None.
    """

    ids_BT: torch.Tensor
    mask_B1TT: torch.Tensor | None
    labels_N: torch.Tensor
    rows_N: torch.Tensor | None
    positions_BT: torch.Tensor | None


def count_labels(batch: Batch) -> int:
    """How many positions of a batch are trained."""
    return int((batch.labels != IGNORED).sum())


def place(batch: Batch, device: torch.device, *, attend_across_documents: bool) -> Inputs:
    """Move a batch to the device and drop the positions that have no label from the head's work."""
    labels = batch.labels.flatten()
    rows = None
    if count_labels(batch) < labels.numel():
        rows = (labels != IGNORED).nonzero().squeeze(1)
        labels = labels[rows]
    mask = positions = None
    if batch.segments is not None and not attend_across_documents:
        segments_BT = batch.segments.to(device, non_blocking=True)
        mask = document_mask(segments_BT)
        positions = document_positions(segments_BT)
    return Inputs(
        ids_BT=batch.input_ids.to(device, non_blocking=True),
        mask_B1TT=mask,
        labels_N=labels.to(device, non_blocking=True),
        rows_N=None if rows is None else rows.to(device, non_blocking=True),
        positions_BT=positions,
    )


def document_mask(segments_BT: torch.Tensor) -> torch.Tensor:
    """Bool (B, 1, T, T): True where the key is not later and of the same document."""
    same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    return same_BTT.tril_().unsqueeze(1)


def document_positions(segments_BT: torch.Tensor) -> torch.Tensor:
    """Positions (B, T) that restart at 0 wherever the segment number changes."""
    length = segments_BT.shape[1]
    place_T = torch.arange(length, device=segments_BT.device)
    starts_BT = torch.zeros_like(segments_BT, dtype=torch.long)
    changed_BT = segments_BT[:, 1:] != segments_BT[:, :-1]
    starts_BT[:, 1:] = torch.where(changed_BT, place_T[1:], 0)
    return place_T - starts_BT.cummax(dim=1).values
