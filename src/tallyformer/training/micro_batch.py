"""From a batch to what the model and the head are given.

Shapes: B batch, T positions, N positions for the head (all rows of the batch in one line).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tallyformer.data.batch import IGNORED, Batch

_ROUND_UP = 64


@dataclass(frozen=True)
class HostBatch:
    """A batch that is ready to be brought to the device, in memory that a GPU copies from.

    Attributes:
        ids: (B, T).
        segments: (B, T), or None without a mask between documents.
        labels: as in `MicroBatch`, like `rows`.
        rows: see there.
        count: how many positions are trained.
        batch: what this was made from.
    """

    ids: torch.Tensor
    segments: torch.Tensor | None
    labels: torch.Tensor
    rows: torch.Tensor | None
    count: int
    batch: Batch


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch on the device.

    Attributes:
        ids: token ids (B, T).
        mask: bool (B, 1, T, T), True where a query may attend; None is plain causal attention.
        labels: (N,) every label, in row-major order, and among them a few IGNORED ones.
        rows: (N,) their places in the flattened batch; None if they are all its positions.
        positions: (B, T) counted from the start of each document, or None.
        batch: what this was made from, on the CPU.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None
    labels: torch.Tensor
    rows: torch.Tensor | None
    positions: torch.Tensor | None
    batch: Batch


@dataclass(frozen=True)
class Placement:
    """How batches are brought to the device.

    Attributes:
        device: where to.
        attend_across_documents: no mask but the causal one.
    """

    device: torch.device
    attend_across_documents: bool = False

    def __call__(self, batch: Batch) -> MicroBatch:
        """Move a batch to the device; positions without a label are left out of the head's work."""
        return self.place(self.prepare(batch))

    def prepare(self, batch: Batch) -> HostBatch:
        """The part that the CPU does; for a GPU in pinned memory, so that copying waits for
        nothing."""
        labels_N, rows_N = _labelled(batch.labels.flatten())
        segments = None if self.attend_across_documents else batch.segments
        return HostBatch(
            ids=self._pinned(batch.input_ids),
            segments=None if segments is None else self._pinned(segments),
            labels=self._pinned(labels_N),
            rows=None if rows_N is None else self._pinned(rows_N),
            count=int((batch.labels != IGNORED).sum()),
            batch=batch,
        )

    def place(self, host: HostBatch) -> MicroBatch:
        """The part on the device."""
        mask = positions = None
        if host.segments is not None:
            segments_BT = host.segments.to(self.device, non_blocking=True)
            mask = document_mask(segments_BT)
            positions = document_positions(segments_BT)
        return MicroBatch(
            ids=host.ids.to(self.device, non_blocking=True),
            mask=mask,
            labels=host.labels.to(self.device, non_blocking=True),
            rows=None if host.rows is None else host.rows.to(self.device, non_blocking=True),
            positions=positions,
            batch=host.batch,
        )

    def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def _labelled(labels_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Labels and places for the head: all that are labelled, rounded up by some that are not.

    A library of matrix products keeps code for every shape that it meets. Numbers of labels as
    they come would fill gigabytes in a long run of fine-tuning.
    """
    wanted_N = labels_N != IGNORED
    count = -(-int(wanted_N.sum()) // _ROUND_UP) * _ROUND_UP
    if count >= labels_N.numel():
        return labels_N, None
    unlabelled = (~wanted_N).nonzero().squeeze(1)
    wanted_N[unlabelled[: count - int(wanted_N.sum())]] = True
    rows_N = wanted_N.nonzero().squeeze(1)
    return labels_N[rows_N], rows_N


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
