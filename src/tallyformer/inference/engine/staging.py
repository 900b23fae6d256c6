"""Numbers that go to the device, or come from it, once a step: always through the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class Staging:
    """Pinned memory on the host for a tensor on the device.

    Args:
        there: the tensor; rows first, the first of them are sent and fetched. On a CPU nothing is
            pinned, and all else is the same.
    """

    def __init__(self, there: Tensor) -> None:
        self._there = there
        self._pinned = there.device.type == "cuda"
        self._here = torch.zeros(there.shape, dtype=there.dtype, pin_memory=self._pinned)
        self._array = self._here.numpy()
        self._sent = torch.cuda.Event() if self._pinned else None  # type: ignore[no-untyped-call]

    def send(self, rows: np.ndarray) -> None:
        """Set the first rows on the device, without waiting for it."""
        if self._sent is not None:
            self._sent.synchronize()  # what was sent before has left the host
        self._array[: len(rows)] = rows
        self._there[: len(rows)].copy_(self._here[: len(rows)], non_blocking=True)
        if self._sent is not None:
            self._sent.record(torch.cuda.current_stream(self._there.device))

    def fetch(self, count: int) -> list[Any]:
        """The first rows, once the device has written them."""
        self._here[:count].copy_(self._there[:count], non_blocking=True)
        if self._pinned:
            torch.cuda.current_stream(self._there.device).synchronize()
        return self._here[:count].tolist()
