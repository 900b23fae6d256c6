"""`GraphRunner`: decoding with fixed shapes and persistent memory, one launch for a whole step.

At the size of these models a GPU waits for launches, not for memory. So a step that takes every
sequence on by one id is a CUDA graph, one for each of a few numbers of rows and of columns that are
read, and the draw is another; a step costs two launches, two small copies to the device and one
from it. A window that begins alone, which is what the time to the first token is made of, is a
graph as well, one for each of a few lengths.

Shapes: B rows of a graph, row b being slot b; T ids of a window, S columns that are read, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tallyformer.inference.engine import device_sampler
from tallyformer.inference.engine.cuda_graphs import CudaGraphs
from tallyformer.inference.engine.runner import Choice, Chosen, LogitsRow, Work
from tallyformer.inference.engine.staging import Staging
from tallyformer.inference.engine.static_decoder import Window
from tallyformer.inference.engine.static_steps import StaticSteps, read_columns, static_columns
from tallyformer.inference.engine.torch_runner import SLOTS, TorchLogits, TorchRunner
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.shape import ModelShape

_FEW = 4
"""Windows that are computed one by one, each by its graph; more of them go together without."""
_SHORTEST = 16
"""Ids of the smallest window's graph."""
_NARROWEST = 64
"""Columns that a step reads at least."""
_MOST_PADDED = 16_384
"""Ids of windows, padding included, that are computed together: a mask has S numbers for each, as
many times as heads share keys."""


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
    """A `Runner` for decoders that `ModelShape` describes. Where the device has no CUDA graphs, the
    same work is done without them.

    Many windows at once, and rows of which several logits are wanted, are computed without graphs.

    Args:
        model: in eval mode; it stays on its device. Some of its weights are copied here.
        shape: the model's.
        vocab_size: ids that have a text; a model may have more rows.
        slots: most sequences that are kept at once; memory for all of them is taken now.
        batch_invariant: each row is always computed by the same kernels, whatever else runs: one
            id always among `slots` rows, several ids always alone, padded to the context.

    Raises:
        Exception: the model cannot be computed this way; whatever torch says.
    """

    def __init__(
        self,
        model: Any,
        shape: ModelShape,
        vocab_size: int,
        *,
        slots: int = SLOTS,
        batch_invariant: bool = False,
    ) -> None:
        widest = read_columns(shape.context)
        self._invariant = batch_invariant
        self._sizes = [slots] if batch_invariant else _doubled(1, slots)
        self._widths = [widest] if batch_invariant else _doubled(_NARROWEST, widest)
        longest = shape.context
        self._window_lengths = [longest] if batch_invariant else _doubled(_SHORTEST, longest)
        self._spare = static_columns(shape.context) - 1
        self._steps = StaticSteps(shape, model.state_dict(), vocab_size, slots=slots)
        self._graphs = CudaGraphs(self._steps.ids.device)
        self._inputs = Staging(self._steps.inputs)
        self._window = Staging(self._steps.window)
        self._settings = None if self._steps.settings is None else Staging(self._steps.settings)
        self._ids = Staging(self._steps.ids)
        super().__init__(model, vocab_size, slots=slots)
        self._rehearse()

    @property
    def problem(self) -> str | None:
        """None, or why the first CUDA graph that could not be recorded was not. Graphs are recorded
        as they are needed, so it may change at any step."""
        return self._graphs.problem

    @torch.inference_mode()
    def clear(self) -> None:
        """Forget all, in whatever state a broken-off computation left them."""
        super().clear()
        self._cache = self._steps.decoder
        self._cache.clear()

    @torch.inference_mode()
    def compute(self, work: Sequence[Work]) -> TorchLogits | SlotLogits:  # type: ignore[override]
        """Compute these sequences' ids and keep them."""
        self._begin(work)
        decoded = [i for i, w in enumerate(work) if len(w.ids) == w.logits == 1]
        if len(decoded) == len(work):
            return SlotLogits(self._steps.logits_SV, self._decode(work))
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
                self._steps.logits_SV[[slots[place] for place in places]] = torch.cat(parts)
            return SlotLogits(self._steps.logits_SV, slots)
        if by_graphs:
            computed = set(places)
            own = [place for place in range(len(slots)) if place not in computed]
            parts.append(self._steps.logits_SV[[slots[place] for place in own]])
            places = places + own
        return TorchLogits(torch.cat(parts), places)

    @torch.inference_mode()
    def choose(self, logits: TorchLogits | SlotLogits, rows: Sequence[LogitsRow]) -> list[Chosen]:
        """Choose an id for each row of what was computed last."""
        if isinstance(logits, TorchLogits):
            return super().choose(logits, rows)
        drawn = self._drawn(logits.slots, rows)
        left = [i for i, token_id in enumerate(drawn) if token_id == device_sampler.NOT_DRAWN]
        choices: list[Chosen] = [Choice(token_id) for token_id in drawn]
        if left:
            left_NV = self._steps.logits_SV[[logits.slots[i] for i in left]]
            others = self._choose(left_NV, [rows[i] for i in left])
            for i, choice in zip(left, others, strict=True):
                choices[i] = choice
        return choices

    @torch.inference_mode()
    def release(self, numbers: Collection[int]) -> None:
        """Forget these sequences."""
        for number in numbers:
            self._forget(number)

    def _decode(self, work: Sequence[Work]) -> list[int]:
        """Take sequences on by one id; their logits come to lie in the rows of their slots."""
        size = self._size(len(work))
        self._bring_forward(work, size)
        slot_of = self._slot_of()
        slots = [slot_of[w.number] for w in work]
        starts = [w.start for w in work]
        rows_B3 = np.full((size, 3), (0, 0, self._spare))
        rows_B3[slots, 0] = [w.ids[0] for w in work]
        rows_B3[slots, 1:] = np.array(starts)[:, None]
        width = _least(self._widths, 1 + max(starts))
        self._inputs.send(rows_B3)
        self._graphs.run(("decode", size, width), lambda: self._steps.decode(size, width))
        return slots

    def _prefill(self, w: Work) -> None:
        """Take a sequence on by several ids; the logits of the last come to lie in its slot's row.

        Shorter windows are padded on the left.
        """
        length = _least(self._window_lengths, len(w.ids))
        width = _least(self._widths, w.start + len(w.ids))
        slot = self._slot_of()[w.number]
        self._window.send(np.array([(slot, 0, 0), *self._padded(w, length)]))
        self._graphs.run(("prefill", length, width), lambda: self._steps.prefill(length, width))

    def _padded(self, w: Work, length: int) -> list[tuple[int, int, int]]:
        """Id, position and column of each place of a window that is padded on the left."""
        places = range(w.start, w.start + len(w.ids))
        pads = [(0, 0, self._spare)] * (length - len(w.ids))
        return [*pads, *zip(w.ids, places, places, strict=True)]

    def _drawn(self, slots: list[int], rows: Sequence[LogitsRow]) -> list[int]:
        """An id for each row that the device can draw, and `NOT_DRAWN` for the others."""
        places, settings_F6, method = device_sampler.planned(rows)
        not_drawn = [device_sampler.NOT_DRAWN] * len(rows)
        if self._settings is None or not places:
            return not_drawn
        size = self._size(max(slots) + 1)
        settings_B6 = np.full((size, device_sampler.SETTINGS), device_sampler.GREEDY)
        settings_B6[[slots[i] for i in places]] = settings_F6
        self._settings.send(settings_B6)
        self._graphs.run((method, size), lambda: self._steps.draw(size, method))
        ids = self._ids.fetch(size)
        if len(places) == len(rows):
            return [ids[slot] for slot in slots]
        for i in places:
            not_drawn[i] = ids[slots[i]]
        return not_drawn

    def _rows(self, work: list[Work], slots: list[int]) -> list[Tensor]:
        """As in `TorchRunner`, in parts that memory suffices for."""
        lengths = [len(w.ids) for w in work]
        alone = [slice(i, i + 1) for i in range(len(work))]
        found: list[Tensor] = []
        for part in alone if self._invariant else _parts(lengths):
            longest = self._window_lengths[-1] if self._invariant else max(lengths[part])
            found += self._rows_together(work[part], slots[part], longest)
        return found

    def _rows_together(self, work: list[Work], slots: list[int], length: int) -> list[Tensor]:
        """T is `length`."""
        width = _least(self._widths, max(w.start + len(w.ids) for w in work))
        device = self._steps.ids.device
        places_BT3 = torch.tensor([self._padded(w, length) for w in work], device=device)
        slots_B1 = torch.tensor(slots, device=device)[:, None]
        ids_BT, positions_BT, columns_BT = places_BT3.unbind(dim=2)
        window = Window(ids_BT, positions_BT, columns_BT, slots_B1, slots_B1[:, 0], width)
        final_BTD = self._steps.decoder.final(window).view(len(work), length, -1)
        if all(w.logits == 1 for w in work):
            return [self._steps.decoder.logits(final_BTD[:, -1])]
        wanted = [
            final_TD[length - w.logits :] for w, final_TD in zip(work, final_BTD, strict=True)
        ]
        return [self._steps.decoder.logits(torch.cat(wanted))]

    def _size(self, rows: int) -> int:
        """The rows of the smallest graph that holds so many."""
        return _least(self._sizes, rows)

    def _bring_forward(self, work: Sequence[Work], size: int) -> None:
        """Let these sequences be among the first slots, before those that only are kept."""
        here = self._slots
        if len(here) <= size:
            return
        numbers = {w.number for w in work}
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


def _parts(lengths: list[int]) -> Iterator[slice]:
    """Windows of these lengths, cut into runs of at most `_MOST_PADDED` padded ids."""
    first = longest = 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if i > first and (i + 1 - first) * longest > _MOST_PADDED:
            yield slice(first, i)
            first, longest = i, length
    yield slice(first, len(lengths))


def _least(numbers: list[int], bound: int) -> int:
    """The first of ascending numbers that is not less than `bound`."""
    return next(number for number in numbers if number >= bound)


def _doubled(first: int, last: int) -> list[int]:
    """`first`, twice that and so on while it is less than `last`, and `last`."""
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return [*sizes, last]
