"""What computes logits with torch: any causal language model of transformers.

Shapes: B rows of a computation, T new ids of each, S ids that it sees, N rows of the result,
V vocabulary.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tallyformer.errors import CheckpointError
from tallyformer.inference.engine import torch_sampler
from tallyformer.inference.engine.cache import SlotCache
from tallyformer.inference.engine.runner import Chosen, LogitsRow, Work
from tallyformer.model.protocol import CACHE_NAME

SLOTS = 64
"""Sequences that are kept at once, by default."""


@dataclass(frozen=True)
class TorchLogits:
    """Rows (N, V) in the order they were computed in; row i is row `places[i]` of the work."""

    rows: Tensor
    places: list[int]


class TorchRunner:
    """A transformers model in eval mode; a `Runner`.

    Sequences are computed together that have one id, a new window, or an old one with several new
    ids; shorter ones are padded on the left, which their positions and the mask know.

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
        self._sees_all = sees_all(model.config)
        self.clear()

    def clear(self) -> None:
        """Forget all, in whatever state a broken-off computation left them."""
        self._cache: Any = SlotCache()
        # Whether what is kept may hold numbers that are not finite.
        self._unsound = False
        # Sequences by slot, without a gap: a decoding step reads them where they are.
        self._slots: list[int] = []
        self._lengths: dict[int, int] = {}

    @torch.inference_mode()
    def compute(self, work: Sequence[Work]) -> TorchLogits:
        """Compute these sequences' ids and keep them."""
        self._begin(work)
        parts, places = self._computed(work, range(len(work)))
        return TorchLogits(torch.cat(parts) if len(parts) != 1 else parts[0], places)

    @torch.inference_mode()
    def choose(self, logits: TorchLogits, rows: Sequence[LogitsRow]) -> list[Chosen]:
        """Choose an id for each row of what was computed last."""
        choices = self._choose(logits.rows, [rows[place] for place in logits.places])
        ordered = dict(zip(logits.places, choices, strict=True))
        return [ordered[place] for place in range(len(rows))]

    @torch.inference_mode()
    def fork(self, number: int, new: int, length: int) -> None:
        """Keep the first `length` ids of a sequence as another one's too."""
        self._cache.copy(self._slots.index(number), len(self._slots), length)
        self._slots.append(new)
        self._lengths[new] = length

    @torch.inference_mode()
    def release(self, numbers: Collection[int]) -> None:
        """Forget these sequences."""
        if len(numbers) == len(self._slots):
            self.clear()
            return
        for number in numbers:
            self._forget(number)

    def _choose(self, logits_NV: Tensor, rows: Sequence[LogitsRow]) -> list[Chosen]:
        choices = torch_sampler.choose(logits_NV, rows)
        self._unsound |= any(isinstance(choice, CheckpointError) for choice in choices)
        return choices

    def _forget(self, number: int) -> None:
        slot, last = self._slots.index(number), self._slots.pop()
        del self._lengths[number]
        if self._unsound:
            # A masked NaN would still reach the sum of whoever has the slot next.
            self._cache.wipe(slot)
        if last != number:
            self._cache.copy(len(self._slots), slot, self._lengths[last])
            self._slots[slot] = last
            if self._unsound:
                # The one that moved may be unsound as well.
                self._cache.wipe(len(self._slots))

    def _begin(self, work: Sequence[Work]) -> None:
        """Give new sequences a slot, and note how long all will be."""
        self._unsound = False
        for w in work:
            if w.number not in self._lengths:
                self._slots.append(w.number)
            self._lengths[w.number] = w.start + len(w.ids)

    def _slot_of(self) -> dict[int, int]:
        return {number: slot for slot, number in enumerate(self._slots)}

    def _computed(
        self, work: Sequence[Work], which: Iterable[int]
    ) -> tuple[list[Tensor], list[int]]:
        """Compute some of the works: rows of logits, and their places among all works' rows."""
        first = list(itertools.accumulate((w.logits for w in work), initial=0))
        slot_of = self._slot_of()
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for i in sorted(which, key=lambda i: slot_of[work[i].number]):
            groups[self._kind(work[i])].append(i)
        parts: list[Tensor] = []
        places: list[int] = []
        for group in groups.values():
            together = [work[i] for i in group]
            rows = self._rows(together, [slot_of[w.number] for w in together])
            parts += [part_NV[:, : self._vocab_size] for part_NV in rows]
            places += [first[i] + j for i in group for j in range(work[i].logits)]
        return parts, places

    def _kind(self, w: Work) -> Hashable:
        """Works of the same kind are computed together."""
        if not self._sees_all:
            return w.start, len(w.ids), w.logits
        return len(w.ids) == 1, w.start == 0, w.logits > 1

    def _rows(self, work: list[Work], slots: list[int]) -> list[Tensor]:
        """Compute works of one kind together; the logits (N, V) that they want, in their order."""
        seen = max(w.start + len(w.ids) for w in work)
        width = max(len(w.ids) for w in work)
        pads = [width - len(w.ids) for w in work]
        starts = [w.start for w in work]
        # One transfer to the device for ids and positions.
        ids_BT, positions_BT = self._tensor(
            [
                [[0] * pad + w.ids for w, pad in zip(work, pads, strict=True)],
                [
                    [-1] * pad + list(range(w.start, w.start + len(w.ids)))
                    for w, pad in zip(work, pads, strict=True)
                ],
            ]
        )
        self._cache.aim(slots, starts, positions_BT, seen)
        even = not any(pads) and len(set(starts)) == 1
        most = max(1, *(w.logits for w in work))
        output = self._model(
            input_ids=ids_BT,
            attention_mask=None if even else self._mask(positions_BT, seen),
            position_ids=positions_BT.clamp(min=0),
            use_cache=True,
            logits_to_keep=most,
            **{CACHE_NAME: self._cache},
        )
        if all(w.logits == 1 for w in work):
            return [output.logits[:, -1]]
        return [output.logits[i, most - w.logits :] for i, w in enumerate(work)]

    def _mask(self, positions_BT: Tensor, seen: int) -> Tensor:
        """0 for what an id may see, the least number for the rest: (B, 1, T, S).

        Padding sees the first id, as a row that sees nothing has no average.
        """
        columns_S = torch.arange(seen, device=positions_BT.device)
        hidden_BTS = columns_S > positions_BT.clamp(min=0)[:, :, None]
        dtype = self._model.dtype
        mask_BTS = torch.zeros(hidden_BTS.shape, dtype=dtype, device=positions_BT.device)
        return mask_BTS.masked_fill_(hidden_BTS, torch.finfo(dtype).min)[:, None]

    def _tensor(self, numbers: Any) -> Tensor:
        return torch.tensor(numbers, device=next(self._model.parameters()).device)


def sees_all(config: Any) -> bool:
    """Whether every layer attends to everything before; others make their masks themselves.

    So do those whose positions are a part of the mask (ALiBi, Press et al. 2022).
    """
    if getattr(config, "alibi", False):
        return False
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and getattr(config, "sliding_window", None) is None
