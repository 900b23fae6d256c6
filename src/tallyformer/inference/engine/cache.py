"""Keys and values of sequences that are kept: one slot each, every id at its own position.

So a sequence may be cut back by forgetting where it ends, and continued by any number of ids.
Places that hold nothing, or what was there before, always hold numbers, and are masked.

Shapes: B rows of a computation, T new columns, S columns read, H heads, D head size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_LEAST_COLUMNS = 64


@dataclass
class Aim:
    """Where the next computation writes and reads.

    Attributes:
        slots: of its B rows; a slice where they follow one another from 0 on.
        written: slots (B, 1) and columns (B, T) that are written; padding has a column apart.
        start: columns that are there before; of the longest row, where rows differ.
        width: S.
        rows, columns: what all buffers must hold.
    """

    slots: slice | Tensor
    written: tuple[Tensor, Tensor]
    start: int
    width: int
    rows: int = 0
    columns: int = 0


class SlotCache(Cache):  # type: ignore[misc]
    """A transformers cache whose rows are any of its slots; `aim` before each computation.

    It grows as it is needed.
    """

    def __init__(self) -> None:
        self._shared: list[Aim] = []
        super().__init__(layer_class_to_replicate=functools.partial(_SlotLayer, self._shared))
        self._rows = self._columns = 0

    def aim(
        self, slots: Sequence[int], starts: Sequence[int], positions_BT: Tensor, width: int
    ) -> None:
        """Say which slots are computed.

        Args:
            slots: of the rows; distinct.
            starts: ids of each that are kept.
            positions_BT: of the new ids; -1 for padding.
            width: S, more than any of the positions.
        """
        device = positions_BT.device
        if max(slots) >= self._rows:
            self._rows = max(max(slots) + 1, self._rows * 3 // 2)
        # The last column is for padding alone.
        if width >= self._columns:
            self._columns = max(width + 1, self._columns * 3 // 2, _LEAST_COLUMNS)
        slots_B1 = torch.tensor(slots, device=device)[:, None]
        in_order = list(slots) == list(range(len(slots)))
        self._shared[:] = [
            Aim(
                slots=slice(0, len(slots)) if in_order else slots_B1[:, 0],
                written=(slots_B1, positions_BT.where(positions_BT >= 0, self._columns - 1)),
                start=max(starts),
                width=width,
                rows=self._rows,
                columns=self._columns,
            )
        ]

    def wipe(self, slot: int) -> None:
        """Forget a slot, in place: zeros, whatever was there."""
        for layer in self.layers:
            layer.wipe(slot)

    def copy(self, slot: int, to: int, length: int) -> None:
        """Copy the first `length` columns of a slot over those of another."""
        self._rows = max(self._rows, to + 1)
        for layer in self.layers:
            layer.copy(slot, to, length, self._rows)


class _SlotLayer(DynamicLayer):  # type: ignore[misc]
    """Two buffers (slots, H, columns, D)."""

    def __init__(self, shared: list[Aim]) -> None:
        super().__init__()
        self._shared = shared

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new columns; return the first S of the rows."""
        [aim] = self._shared
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = (
                states.new_zeros(aim.rows, states.shape[1], aim.columns, states.shape[3])
                for states in (key_states, value_states)
            )
        self._grow(aim.rows, aim.columns)
        slots_B1, columns_BT = aim.written
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            buffer[slots_B1, :, columns_BT] = states.transpose(1, 2)
        keys, values = (b[aim.slots, :, : aim.width] for b in (self.keys, self.values))
        return keys, values

    def get_seq_length(self) -> int:
        """Columns that are there before the computation."""
        return self._shared[0].start

    def copy(self, slot: int, to: int, length: int, rows: int) -> None:
        self._grow(rows, self.keys.shape[2])
        for buffer in (self.keys, self.values):
            buffer[to, :, :length] = buffer[slot, :, :length]

    def wipe(self, slot: int) -> None:
        for buffer in (self.keys, self.values):
            buffer[slot] = 0

    def _grow(self, rows: int, columns: int) -> None:
        held, heads, width, _ = self.keys.shape
        if (rows, columns) == (held, width):
            return
        for name in ("keys", "values"):
            old = getattr(self, name)
            # A masked NaN of memory that nobody wrote would still reach the sum.
            new = old.new_zeros(rows, heads, columns, old.shape[3])
            # Nor is the column for padding read, which is elsewhere from now on.
            new[:held, :, : width - 1] = old[:, :, :-1]
            setattr(self, name, new)
