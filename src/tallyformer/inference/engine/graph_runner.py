"""`GraphRunner`: decoding with fixed shapes and persistent memory, one launch for a whole step.

At the size of these models a GPU waits for launches, not for memory. So a step that takes every
sequence on by one id is a CUDA graph, one for each of a few numbers of rows, and the draw is
another; a step costs two launches, two small copies to the device and one from it. A window that
begins alone, which is what the time to the first token is made of, is a graph as well, one for each
of a few widths.

Shapes: B rows of a graph, row b being slot b; W ids of a window, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tallyformer.inference.engine import device_sampler
from tallyformer.inference.engine.cache import SlotCache
from tallyformer.inference.engine.cuda_graphs import CudaGraphs
from tallyformer.inference.engine.runner import Choice, Chosen, LogitsRow, Work
from tallyformer.inference.engine.staging import Staging
from tallyformer.inference.engine.torch_runner import SLOTS, TorchLogits, TorchRunner
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.device import has_float64
from tallyformer.model.protocol import CACHE_NAME

_FEW = 4
"""Windows that are computed one by one, each by its graph; more of them go together without."""
_NARROWEST = 16
"""Ids of the smallest window's graph."""
_ALIGNED = 8
"""Columns come in multiples of it, as fused attention wants its mask."""


@dataclass(frozen=True)
class SlotLogits:
    """Rows that lie in the runner's own memory, row i of the work in that of `slots[i]`."""

    held: Tensor
    slots: list[int]

    @property
    def rows(self) -> Tensor:
        """A copy of the rows, in the order of the work."""
        return self.held[self.slots]

    @property
    def places(self) -> list[int]:
        """As in `TorchLogits`."""
        return list(range(len(self.slots)))


class GraphRunner(TorchRunner):
    """A `Runner` for models whose layers all see everything before. Where the device has no CUDA
    graphs, the same work is done without them.

    Many windows at once, and rows of which several logits are wanted, are computed as in
    `TorchRunner`.

    Args:
        model: in eval mode; it stays on its device.
        vocab_size: ids that have a text; a model may have more rows.
        context: ids that the model sees at once.
        slots: most sequences that are kept at once; memory for all of them is taken now.
        batch_invariant: each row is always computed by the same kernels, whatever else runs: one
            id always among `slots` rows, several ids always alone, padded to `context`.

    Raises:
        Exception: the model cannot be computed this way; whatever torch or the model says.
    """

    def __init__(
        self,
        model: Any,
        vocab_size: int,
        *,
        context: int,
        slots: int = SLOTS,
        batch_invariant: bool = False,
    ) -> None:
        device = next(model.parameters()).device
        self._context = context
        self._invariant = batch_invariant
        self._sizes = [slots] if batch_invariant else _doubled(1, slots)
        self._widths = [context] if batch_invariant else _doubled(_NARROWEST, context)
        columns = static_columns(context)
        self._spare = columns - 1
        self._static = SlotCache(slots, columns)
        self._graphs = CudaGraphs(device)
        # Of each row: id, position, column that is written.
        self._inputs = Staging((slots, 3), torch.int64, device)
        # Of a window: its slot in the first row, then id and position of each place.
        self._window = Staging((1 + context, 2), torch.int64, device)
        self._settings: Staging | None = None
        if has_float64(device):
            shape = (slots, device_sampler.SETTINGS)
            self._settings = Staging(shape, torch.float64, device)
        self._ids = Staging((slots,), torch.int64, device)
        self._slots_S1 = torch.arange(slots, device=device)[:, None]
        self._logits_SV = torch.zeros(slots, vocab_size, dtype=model.dtype, device=device)
        super().__init__(model, vocab_size, slots=slots)
        self._rehearse()

    @property
    def problem(self) -> str | None:
        """None where CUDA graphs are used, or why they are not."""
        return self._graphs.problem

    @torch.inference_mode()
    def clear(self) -> None:
        """Forget all, in whatever state a broken-off computation left them."""
        super().clear()
        self._cache = self._static
        self._cache.wipe()

    @torch.inference_mode()
    def compute(self, work: Sequence[Work]) -> TorchLogits | SlotLogits:  # type: ignore[override]
        """Compute these sequences' ids and keep them."""
        self._begin(work)
        decoded = [i for i, w in enumerate(work) if len(w.ids) == w.logits == 1]
        windows = [i for i, w in enumerate(work) if len(w.ids) > w.logits == 1]
        if len(windows) > _FEW and not self._invariant:
            windows = []
        if decoded:
            self._decode([work[i] for i in decoded])
        for i in windows:
            self._prefill(work[i])
        by_graphs = {*decoded, *windows}
        others = [i for i in range(len(work)) if i not in by_graphs]
        parts, places = self._computed(work, others) if others else ([], [])
        slot_of = self._slot_of()
        # One for each row of logits.
        slots = [slot_of[w.number] for w in work for _ in range(w.logits)]
        if len(set(slots)) == len(slots):
            if places:
                self._logits_SV[[slots[place] for place in places]] = torch.cat(parts)
            return SlotLogits(self._logits_SV, slots)
        if by_graphs:
            own = [place for place in range(len(slots)) if place not in set(places)]
            parts.append(self._logits_SV[[slots[place] for place in own]])
            places = places + own
        return TorchLogits(torch.cat(parts), places)

    @torch.inference_mode()
    def choose(self, logits: TorchLogits | SlotLogits, rows: Sequence[LogitsRow]) -> list[Chosen]:
        """Choose an id for each row of what was computed last."""
        if isinstance(logits, TorchLogits):
            return super().choose(logits, rows)
        found: dict[int, Chosen] = {**self._drawn(logits.slots, rows)}
        left = [i for i in range(len(rows)) if i not in found]
        if left:
            left_NV = self._logits_SV[[logits.slots[i] for i in left]]
            choices = self._choose(left_NV, [rows[i] for i in left])
            found |= dict(zip(left, choices, strict=True))
        return [found[i] for i in range(len(rows))]

    @torch.inference_mode()
    def release(self, numbers: Collection[int]) -> None:
        """Forget these sequences."""
        for number in numbers:
            self._forget(number)

    def _decode(self, work: list[Work]) -> None:
        """Take sequences on by one id; their logits come to lie in their slots' rows."""
        size = self._size(len(work))
        self._bring_forward({w.number for w in work}, size)
        slot_of = self._slot_of()
        rows = [(0, 0, self._spare)] * size
        for w in work:
            rows[slot_of[w.number]] = (w.ids[0], w.start, w.start)
        self._inputs.send(rows)
        self._graphs.run(("decode", size), lambda: self._forward(size))

    def _forward(self, size: int) -> None:
        ids_B1, positions_B1, columns_B1 = self._inputs.there[:size, :, None].unbind(dim=1)
        self._cache.aim_still(slice(0, size), self._slots_S1[:size], columns_B1)
        output = self._model(
            input_ids=ids_B1,
            attention_mask=self._mask(positions_B1, self._spare + 1),
            position_ids=positions_B1,
            use_cache=True,
            logits_to_keep=1,
            **{CACHE_NAME: self._cache},
        )
        self._logits_SV[:size].copy_(output.logits[:, -1, : self._vocab_size])

    def _prefill(self, w: Work) -> None:
        """Take a sequence on by several ids; the logits of the last come to lie in its slot's row.

        Shorter windows are padded on the left, as in `TorchRunner`.
        """
        width = next(width for width in self._widths if width >= len(w.ids))
        pads = width - len(w.ids)
        places = enumerate(w.ids, w.start)
        slot = self._slot_of()[w.number]
        self._window.send([(slot, 0), *[(0, -1)] * pads, *((i, place) for place, i in places)])
        self._graphs.run(("prefill", width), lambda: self._forward_window(width))

    def _forward_window(self, width: int) -> None:
        slot_11 = self._window.there[:1, :1]
        ids_1W, positions_1W = self._window.there[1 : 1 + width].T[:, None].unbind()
        columns_1W = positions_1W.where(positions_1W >= 0, self._spare)
        self._cache.aim_still(slot_11[0], slot_11, columns_1W)
        output = self._model(
            input_ids=ids_1W,
            attention_mask=self._mask(positions_1W, self._spare + 1),
            position_ids=positions_1W.clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
            **{CACHE_NAME: self._cache},
        )
        self._logits_SV[slot_11[0]] = output.logits[:, -1, : self._vocab_size]

    def _drawn(self, slots: list[int], rows: Sequence[LogitsRow]) -> dict[int, Choice]:
        """Choices of the rows that the device can draw, by their place."""
        fitting = [i for i, row in enumerate(rows) if device_sampler.fits(row)]
        if self._settings is None or not fitting:
            return {}
        size = self._size(max(slots) + 1)
        settings: list[tuple[float, ...]] = [device_sampler.GREEDY] * size
        for i in fitting:
            settings[slots[i]] = device_sampler.settings_of(rows[i])
        self._settings.send(settings)
        settings_B6 = self._settings.there[:size]
        method = device_sampler.method_of(rows[i] for i in fitting)

        def draw() -> None:
            ids_B = device_sampler.drawn(self._logits_SV[:size], settings_B6, method)
            self._ids.there[:size].copy_(ids_B)

        self._graphs.run((method, size), draw)
        ids = self._ids.fetch(size)
        return {
            i: Choice(ids[slots[i]]) for i in fitting if ids[slots[i]] != device_sampler.NOT_DRAWN
        }

    def _rows(self, work: list[Work], slots: list[int], width: int = 0) -> list[Tensor]:
        if not self._invariant:
            return super()._rows(work, slots, width)
        parts: list[Tensor] = []
        for w, slot in zip(work, slots, strict=True):
            parts += super()._rows([w], [slot], self._context)
        return parts

    def _size(self, rows: int) -> int:
        """The rows of the smallest graph that holds so many."""
        return next(size for size in self._sizes if size >= rows)

    def _bring_forward(self, numbers: set[int], size: int) -> None:
        """Let these sequences be among the first slots, before those that only are kept."""
        here = self._slots
        late = [slot for slot in range(size, len(here)) if here[slot] in numbers]
        idle = [slot for slot in range(min(size, len(here))) if here[slot] not in numbers]
        for slot, other in zip(late, idle, strict=False):
            self._cache.swap(slot, other)
            here[slot], here[other] = here[other], here[slot]

    def _rehearse(self) -> None:
        """Find out now, not at the first answer, whether all of it works here."""
        greedy = LogitsRow(
            params=SamplingParams(temperature=0), counts={}, prompt_ids=(), uniform=0
        )
        drawn = LogitsRow(params=SamplingParams(top_p=0.5), counts={}, prompt_ids=(), uniform=0)
        self.choose(self.compute([Work(0, 0, [0, 0])]), [greedy])
        self.choose(self.compute([Work(0, 1, [0])]), [drawn])
        self.clear()


def static_columns(context: int) -> int:
    """Columns of a slot: the context's, at least one for padding, rounded up."""
    return (context // _ALIGNED + 1) * _ALIGNED


def _doubled(first: int, last: int) -> list[int]:
    """`first`, twice that and so on while it is less than `last`, and `last`."""
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return [*sizes, last]
