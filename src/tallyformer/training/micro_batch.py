"""From a batch to what the model and the head are given.

Shapes: B batch, T positions, N positions for the head (all rows of the batch in one line).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from tallyformer.data.batch import IGNORED, Batch

_ROUND_UP = 64


@dataclass(frozen=True)
class HostBatch:
    """A batch that is ready to be brought to the device, in memory that a GPU copies from.

    Attributes:
        ids: (B, T).
        segments: (B, T), or None where documents may see each other.
        starts: for a GPU; see `document_starts`.
        labels: as in `MicroBatch`, like `rows`.
        rows: see there.
        count: how many positions are trained.
        batch: what this was made from.
    """

    ids: torch.Tensor
    segments: torch.Tensor | None
    starts: torch.Tensor | None
    labels: torch.Tensor
    rows: torch.Tensor | None
    count: int
    batch: Batch


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch on the device.

    Attributes:
        ids: token ids (B, T).
        segments: see `HostBatch`, like `starts`.
        labels: (N,) every label, in row-major order, and among them a few IGNORED ones.
        rows: (N,) their places in the flattened batch; None if they are all its positions.
        host: what this was made from, on the CPU.
    """

    ids: torch.Tensor
    segments: torch.Tensor | None
    starts: torch.Tensor | None
    labels: torch.Tensor
    rows: torch.Tensor | None
    host: HostBatch

    @cached_property
    def mask(self) -> torch.Tensor | None:
        """Bool (B, 1, T, T), True where a query may attend; None is plain causal attention."""
        return None if self.segments is None else document_mask(self.segments)

    @cached_property
    def positions(self) -> torch.Tensor | None:
        """(B, T) counted from the start of each document, or None."""
        return None if self.segments is None else document_positions(self.segments)


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
            starts=self._starts(segments),
            labels=self._pinned(labels_N),
            rows=None if rows_N is None else self._pinned(rows_N),
            count=int((batch.labels != IGNORED).sum()),
            batch=batch,
        )

    def place(self, host: HostBatch) -> MicroBatch:
        """The part on the device."""
        return MicroBatch(
            ids=self._moved(host.ids),
            segments=None if host.segments is None else self._moved(host.segments),
            starts=None if host.starts is None else self._moved(host.starts),
            labels=self._moved(host.labels),
            rows=None if host.rows is None else self._moved(host.rows),
            host=host,
        )

    def _starts(self, segments: torch.Tensor | None) -> torch.Tensor | None:
        if segments is None or self.device.type != "cuda":
            return None
        return self._pinned(document_starts(segments))

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        return moved(tensor, self.device)

    def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        return pinned(tensor, self.device)


def pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor in memory that a GPU copies from by itself; for a CPU as it is."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device. For a GPU it must be `pinned`, and nothing waits for the copy."""
    return tensor.to(device, non_blocking=device.type == "cuda")


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


def document_starts(segments_BT: torch.Tensor) -> torch.Tensor:
    """(L + 1,) int32: where each document begins in the B * T positions in one line, and B * T.

    A row begins a document too. Rounded up by empty documents at the end, so that a compiled model
    meets few lengths.
    """
    begins_BT = torch.ones_like(segments_BT, dtype=torch.bool)
    begins_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    starts_L = begins_BT.flatten().nonzero().squeeze(1).int()
    count = -(-(len(starts_L) + 1) // _ROUND_UP) * _ROUND_UP
    return torch.nn.functional.pad(starts_L, (0, count - len(starts_L)), value=segments_BT.numel())


def document_positions(segments_BT: torch.Tensor) -> torch.Tensor:
    """Positions (B, T) that restart at 0 wherever the segment number changes."""
    length = segments_BT.shape[1]
    place_T = torch.arange(length, device=segments_BT.device)
    starts_BT = torch.zeros_like(segments_BT, dtype=torch.long)
    changed_BT = segments_BT[:, 1:] != segments_BT[:, :-1]
    starts_BT[:, 1:] = torch.where(changed_BT, place_T[1:], 0)
    return place_T - starts_BT.cummax(dim=1).values
