"""What computes logits with torch: any causal language model of transformers.

Shapes: N rows of the result, B rows that run, S cached columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tallyformer.inference.engine import torch_sampler
from tallyformer.inference.engine.cache import RowCache
from tallyformer.inference.engine.runner import Choice, Row, Work
from tallyformer.model.protocol import CACHE_NAME

SLOTS = 64
"""Sequences that are kept at once, by default."""


@dataclass(frozen=True)
class TorchLogits:
    """Rows in the order they were computed in; row i belongs to place `places[i]` of the work."""

    rows: Tensor
    places: list[int]


class TorchRunner:
    """A transformers model in eval mode; a `Runner`. Shorter rows are padded on the left.

    Args:
        model: it may be on any device.
        vocab_size: ids that have a text; a model may have more rows.
        slots: most sequences that are kept at once.
    """

    prefill_chunk: int | None = None

    def __init__(self, model: Any, vocab_size: int, *, slots: int = SLOTS) -> None:
        self.slots = slots
        self._model = model
        self._vocab_size = vocab_size
        self.clear()

    def clear(self) -> None:
        """Forget all, in whatever state a broken-off computation left them."""
        self._cache = RowCache()
        self._numbers: list[int] = []
        self._lengths: list[int] = []

    @torch.inference_mode()
    def compute(self, work: Sequence[Work]) -> TorchLogits:
        """Compute the next id of every sequence that is kept, and whole windows of new ones."""
        place = {w.number: i for i, w in enumerate(work)}
        begun = [w for w in work if w.start == 0]
        running = {w.number: w.ids for w in work if w.start}
        parts: list[Tensor] = []
        numbers: list[int] = []
        if running:
            numbers += self._numbers
            parts.append(self._decode(running))
        if begun:
            parts.append(self._prefill(begun))
            numbers += [w.number for w in begun]
        logits_NV = torch.cat(parts) if len(parts) > 1 else parts[0]
        return TorchLogits(logits_NV[:, : self._vocab_size], [place[n] for n in numbers])

    @torch.inference_mode()
    def choose(self, logits: TorchLogits, rows: Sequence[Row]) -> list[Choice]:
        """Choose an id for each row of what was computed last."""
        choices = torch_sampler.choose(logits.rows, [rows[place] for place in logits.places])
        ordered = dict(zip(logits.places, choices, strict=True))
        return [ordered[place] for place in range(len(rows))]

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

    def _prefill(self, work: Sequence[Work]) -> Tensor:
        lengths = [len(w.ids) for w in work]
        width = max(lengths)
        ids_NS = self._tensor([[0] * (width - len(w.ids)) + w.ids for w in work])
        mask_NS = _mask(self._tensor([[width - length] for length in lengths]), width)
        positions_NS = (mask_NS.cumsum(dim=1) - 1).clamp(min=0)
        logits_NV, cache = self._compute(ids_NS, mask_NS, positions_NS, RowCache())
        if self._numbers:
            self._cache.join(cache)
        else:
            self._cache = cache
        self._numbers += [w.number for w in work]
        self._lengths += lengths
        return logits_NV

    def _decode(self, ids: dict[int, list[int]]) -> Tensor:
        assert ids.keys() == set(self._numbers)
        last = max(self._lengths)
        rows = zip(self._numbers, self._lengths, strict=True)
        # One transfer to the device for all three.
        ids_B1, positions_B1, first_B1 = self._tensor(
            [[*ids[number], length, last - length] for number, length in rows]
        ).chunk(3, dim=1)
        self._lengths = [length + 1 for length in self._lengths]
        logits_BV, self._cache = self._compute(
            ids_B1, _mask(first_B1, last + 1), positions_B1, self._cache
        )
        return logits_BV

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
