"""What a device does in a step, on memory that never moves: work for CUDA graphs.

Nothing here waits for the device, reads a number from it, or takes one from the host but what has
been copied into `inputs`, `window` and `settings` before.

Shapes: B rows, row b being slot b; T ids of a window, S columns that are read, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tallyformer.inference.engine import device_sampler
from tallyformer.inference.engine.static_decoder import StaticDecoder, Window
from tallyformer.model.device import has_float64
from tallyformer.model.shape import ModelShape

_ALIGNED = 8
"""Columns come in multiples of it, as fused attention wants its mask."""


class StaticSteps:
    """A decoder, and all that its steps read and write.

    Args:
        shape: of the model.
        weights: by the shape's names, on one device.
        vocab_size: ids that have a text.
        slots: sequences that are kept.

    Attributes:
        decoder: the model, with keys and values.
        inputs: of each row id, position and column that is written, (slots, 3).
        window: a slot in the first row, then the same of each id of a window, (1 + context, 3).
        settings: of each row's draw, see `device_sampler`; None where the device cannot draw.
        ids: what was drawn, (slots,).
        logits_SV: of each slot.
    """

    def __init__(
        self, shape: ModelShape, weights: Mapping[str, Tensor], vocab_size: int, *, slots: int
    ) -> None:
        columns = static_columns(shape.context)
        self.decoder = StaticDecoder(shape, weights, vocab_size, slots=slots, columns=columns)
        dtype, device = self.decoder.kept.dtype, self.decoder.kept.device
        self.inputs = torch.zeros(slots, 3, dtype=torch.int64, device=device)
        self.window = torch.zeros(1 + shape.context, 3, dtype=torch.int64, device=device)
        self.settings: Tensor | None = None
        if has_float64(device):
            sizes = (slots, device_sampler.SETTINGS)
            self.settings = torch.zeros(sizes, dtype=torch.float64, device=device)
        self.ids = torch.zeros(slots, dtype=torch.int64, device=device)
        room = device_sampler.room(vocab_size)
        self._with_room = torch.full((slots, room), -torch.inf, dtype=dtype, device=device)
        self.logits_SV = self._with_room.narrow(1, 0, vocab_size)
        self._slots_S1 = torch.arange(slots, device=device).unsqueeze(1)

    def decode(self, size: int, width: int) -> None:
        """Take the first `size` slots on by one id; their logits come to lie in their rows."""
        ids_B1, positions_B1, columns_B1 = self.inputs[:size, :, None].unbind(dim=1)
        slots_B1 = self._slots_S1[:size]
        window = Window(ids_B1, positions_B1, columns_B1, slots_B1, slice(0, size), width)
        self.decoder.logits(self.decoder.final(window), self.logits_SV[:size])

    def prefill(self, length: int, width: int) -> None:
        """Take one slot on by the ids of `window`; the last one's logits come to lie in its row."""
        slot_1 = self.window[0, :1]
        ids_1T, positions_1T, columns_1T = self.window[1 : 1 + length].T[:, None].unbind()
        window = Window(ids_1T, positions_1T, columns_1T, slot_1[:, None], slot_1, width)
        last_1D = self.decoder.final(window)[-1:]
        self.logits_SV.index_copy_(0, slot_1, self.decoder.logits(last_1D))

    def draw(self, size: int, method: device_sampler.Method) -> None:
        """Draw an id for each of the first `size` slots."""
        assert self.settings is not None
        drawn_B = device_sampler.drawn(self._with_room[:size], self.settings[:size], method)
        self.ids[:size].copy_(drawn_B)


def read_columns(context: int) -> int:
    """Columns of a slot that a step reads at most: the context's, rounded up."""
    return -(-context // _ALIGNED) * _ALIGNED


def static_columns(context: int) -> int:
    """Columns of a slot. Padding has the last one, which is never read: it may be NaN."""
    return read_columns(context) + _ALIGNED
