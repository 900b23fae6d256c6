"""What computes logits: any causal language model of transformers.

Shapes: N rows of the result, B rows that run, S cached columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from tallyformer.inference.engine.cache import RowCache
from tallyformer.model.protocol import CACHE_NAME

Window = list[int]
Logits = tuple[list[int], Tensor]
"""The sequences' numbers, and one row each of what may follow: logits_NV."""


class Runner(Protocol):
    """Computes what may follow, and keeps the keys and values of sequences that run."""

    def prefill(self, windows: Mapping[int, Window]) -> Logits:
        """Compute whole windows and keep them, each under its sequence's number."""

    def decode(self, ids: Mapping[int, int]) -> Logits:
        """Compute the next id of every sequence that is kept."""

    def release(self, numbers: Collection[int]) -> None:
        """Forget these sequences."""

    def clear(self) -> None:
        """Forget all, in whatever state a broken-off computation left them."""


class TorchRunner:
    """A transformers model in eval mode; shorter rows are padded on the left.

    Args:
        model: it may be on any device.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.clear()

    def clear(self) -> None:
        """Forget all, in whatever state a broken-off computation left them."""
        self._cache = RowCache()
        self._numbers: list[int] = []
        self._lengths: list[int] = []

    @torch.inference_mode()
    def prefill(self, windows: Mapping[int, Window]) -> Logits:
        """Compute whole windows and keep them, each under its sequence's number."""
        lengths = [len(window) for window in windows.values()]
        width = max(lengths)
        padded = [[0] * (width - len(window)) + window for window in windows.values()]
        ids_NS = self._tensor(padded)
        mask_NS = _mask(self._tensor([[width - length] for length in lengths]), width)
        positions_NS = (mask_NS.cumsum(dim=1) - 1).clamp(min=0)
        logits_NV, cache = self._compute(ids_NS, mask_NS, positions_NS, RowCache())
        if self._numbers:
            self._cache.join(cache)
        else:
            self._cache = cache
        self._numbers += windows
        self._lengths += lengths
        return list(windows), logits_NV

    @torch.inference_mode()
    def decode(self, ids: Mapping[int, int]) -> Logits:
        """Compute the next id of every sequence that is kept."""
        assert ids.keys() == set(self._numbers)
        last = max(self._lengths)
        rows = zip(self._numbers, self._lengths, strict=True)
        # One transfer to the device for all three.
        ids_B1, positions_B1, first_B1 = self._tensor(
            [[ids[number], length, last - length] for number, length in rows]
        ).chunk(3, dim=1)
        self._lengths = [length + 1 for length in self._lengths]
        logits_BV, self._cache = self._compute(
            ids_B1, _mask(first_B1, last + 1), positions_B1, self._cache
        )
        return list(self._numbers), logits_BV

    @torch.inference_mode()
    def release(self, numbers: Collection[int]) -> None:
        """Forget these sequences."""
        if len(numbers) == len(self._numbers):
            self.clear()
            return
        for number in numbers:
            row = self._numbers.index(number)
            self._cache.drop_row(row)
            for column in (self._numbers, self._lengths):
                column[row] = column[-1]
                column.pop()
        self._cache.keep_newest(max(self._lengths))

    def _compute(
        self, ids: Tensor, mask: Tensor, positions: Tensor, cache: RowCache
    ) -> tuple[Tensor, RowCache]:
        """Logits (N, V) after the last ids, and the cache that holds them too."""
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{CACHE_NAME: cache},
        )
        return output.logits[:, -1], getattr(output, CACHE_NAME)

    def _tensor(self, numbers: Any) -> Tensor:
        return torch.tensor(numbers, device=next(self._model.parameters()).device)


def _mask(first_N1: Tensor, width: int) -> Tensor:
    """1 from a row's first column on, 0 on its left: (N, S)."""
    return (torch.arange(width, device=first_N1.device) >= first_N1).long()
