"""Numbers that go to the device, or come from it, once a step: always through the same memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class Staging:
    """A tensor on the device, and pinned memory of the same shape on the host.

    Args:
        shape: rows first; the first of them are sent and fetched.
        dtype: of both.
        device: on a CPU nothing is pinned, and all else is the same.

    Attributes:
        there: the tensor on the device. It never moves, so that CUDA graphs can read and write it.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._device = device
        self._pinned = device.type == "cuda"
        self._here = torch.zeros(*shape, dtype=dtype, pin_memory=self._pinned)
        self.there = torch.zeros(*shape, dtype=dtype, device=device)
        self._sent = torch.cuda.Event() if self._pinned else None  # type: ignore[no-untyped-call]

    def send(self, rows: Sequence[Any]) -> None:
        """Set the first rows on the device, without waiting for it."""
        if self._sent is not None:
            self._sent.synchronize()  # what was sent before has left the host
        self._here.numpy()[: len(rows)] = rows
        self.there[: len(rows)].copy_(self._here[: len(rows)], non_blocking=True)
        if self._sent is not None:
            self._sent.record(torch.cuda.current_stream(self._device))

    def fetch(self, count: int) -> list[Any]:
        """The first rows, once the device has written them."""
        self._here[:count].copy_(self.there[:count], non_blocking=True)
        if self._pinned:
            torch.cuda.current_stream(self._device).synchronize()
        return self._here[:count].tolist()
