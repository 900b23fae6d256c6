"""Keys and values of rows that are generated together, written in place.

Shapes: B rows, H heads, S cached columns, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_LEAST_ROOM = 64
"""Columns that a new buffer has beyond those it must hold."""


class RowCache(Cache):  # type: ignore[misc]
    """A transformers cache whose columns are added without copying those that are there."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_BufferedLayer)

    def select_rows(self, index_N: Tensor) -> None:
        """Keep the rows of `index_N`, in its order."""
        for layer in self.layers:
            layer.view(layer.keys[index_N], layer.values[index_N])

    def keep_newest(self, columns: int) -> None:
        """Forget all but the last `columns`."""
        for layer in self.layers:
            layer.forget(layer.keys.shape[2] - columns)

    def replace_rows(self, index_N: Tensor, new: RowCache) -> None:
        """Put the rows of `new` over the last columns of those of `index_N`."""
        for layer, other in zip(self.layers, new.layers, strict=True):
            width = other.keys.shape[2]
            layer.keys[index_N, :, -width:] = other.keys
            layer.values[index_N, :, -width:] = other.values


class _BufferedLayer(DynamicLayer):  # type: ignore[misc]
    """Columns in the middle of two buffers; `keys` and `values` (B, H, S, D) are views of them."""

    def view(self, keys: Tensor, values: Tensor) -> None:
        """Hold these columns, and copy them to a buffer with room when one more is added."""
        self.keys, self.values = self._buffers = keys, values
        self._start = 0

    def forget(self, columns: int) -> None:
        """Drop `columns` on the left."""
        self._start += columns
        self.keys, self.values = self.keys[:, :, columns:], self.values[:, :, columns:]

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append columns; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.view(key_states, value_states)
            return self.keys, self.values
        old, more = self.keys.shape[2], key_states.shape[2]
        if self._start + old + more > self._buffers[0].shape[2]:
            self._move(old + more)
        written = slice(self._start + old, self._start + old + more)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, written] = states
        used = slice(self._start, written.stop)
        self.keys, self.values = (buffer[:, :, used] for buffer in self._buffers)
        return self.keys, self.values

    def _move(self, columns: int) -> None:
        """To new buffers with room for `columns` and half as many again."""
        room = columns + max(_LEAST_ROOM, columns // 2)
        self._buffers = _with_room(self.keys, room), _with_room(self.values, room)
        self._start = 0


def _with_room(old: Tensor, columns: int) -> Tensor:
    batch, heads, used, size = old.shape
    new: Tensor = torch.empty(batch, heads, columns, size, dtype=old.dtype, device=old.device)
    new[:, :, :used] = old
    return new
