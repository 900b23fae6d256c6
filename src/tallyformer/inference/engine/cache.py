"""Keys and values of sequences that run together: one row each, written in place.

Rows are aligned to the right: the newest id of every row is in the last column. Columns to the
left of a row's first id hold zeros or what was there before, always numbers, and are masked.

Shapes: B rows, H heads, S cached columns, D head size.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_LEAST_ROOM = 64
"""Columns that a new buffer has beyond those it must hold."""


class RowCache(Cache):  # type: ignore[misc]
    """A transformers cache whose rows come and go, and whose columns grow, mostly in place."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_BufferedLayer)

    def drop_row(self, row: int) -> None:
        """Forget a row; the last one takes its place."""
        for layer in self.layers:
            layer.drop_row(row)

    def keep_newest(self, columns: int) -> None:
        """Forget all but the last `columns`."""
        for layer in self.layers:
            layer.keep_newest(columns)

    def join(self, new: RowCache) -> None:
        """Add the rows of `new` below those that are here."""
        for layer, other in zip(self.layers, new.layers, strict=True):
            layer.join(other.keys, other.values)


class _BufferedLayer(DynamicLayer):  # type: ignore[misc]
    """A part of two buffers; `keys` and `values` (B, H, S, D) are views of them."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append columns; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = key_states, value_states
            self._look_at(len(key_states), 0, key_states.shape[2])
            return self.keys, self.values
        more = key_states.shape[2]
        if self._end + more > self._buffers[0].shape[2]:
            self._move(self._rows, right=more)
        end = self._end + more
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: self._rows, :, self._end : end] = states
        self._look_at(self._rows, self._start, end)
        return self.keys, self.values

    def drop_row(self, row: int) -> None:
        last = self._rows - 1
        if row != last:
            self.keys[row], self.values[row] = self.keys[last], self.values[last]
        self._look_at(last, self._start, self._end)

    def keep_newest(self, columns: int) -> None:
        self._look_at(self._rows, self._end - columns, self._end)

    def join(self, keys: Tensor, values: Tensor) -> None:
        old, rows, width = self._rows, self._rows + len(keys), keys.shape[2]
        widest = max(width, self.keys.shape[2])
        if rows > len(self._buffers[0]) or widest > self._end:
            self._move(rows + old // 2, left=widest - self.keys.shape[2])
        before, start, first = self._start, self._end - widest, self._end - width
        for buffer, states in zip(self._buffers, (keys, values), strict=True):
            buffer[:old, :, start:before] = 0
            buffer[old:rows, :, start:first] = 0
            buffer[old:rows, :, first : self._end] = states
        self._look_at(rows, start, self._end)

    def _look_at(self, rows: int, start: int, end: int) -> None:
        self._rows, self._start, self._end = rows, start, end
        self.keys, self.values = (buffer[:rows, :, start:end] for buffer in self._buffers)

    def _move(self, room: int, *, left: int = 0, right: int = 0) -> None:
        """To new buffers for `room` rows, with so many columns, and some more, to be filled."""
        rows, heads, width, size = self.keys.shape
        columns = left + width + right + max(_LEAST_ROOM, width // 2)
        used = slice(left, left + width)
        moved = []
        for old in (self.keys, self.values):
            new = old.new_empty(room, heads, columns, size)
            new[:rows, :, used] = old
            moved.append(new)
        self._buffers = moved[0], moved[1]
        self._look_at(rows, used.start, used.stop)
