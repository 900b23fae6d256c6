"""Calling any causal language model of transformers on rows of packed documents.

Shapes: B batch, T positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import Any

import torch

from tallyformer.training.micro_batch import document_mask, document_positions

_PROBE_TOKENS = 16
_PROBE_TOLERANCE = 0.05
"""Relative difference that bf16's rounding may cause; a leak between documents is larger."""


class PackedCall:
    """Gives a model the mask and the positions of packed documents in the form it understands.

    Args:
        module: a causal language model, or its body, in evaluation mode.
        ids: how many ids it can be tried on, from 0 on.
    """

    def __init__(self, module: Any, ids: int):
        self._module = module
        self._ids = ids
        self._takes_positions = "position_ids" in inspect.signature(module.forward).parameters

    def __call__(
        self, ids_BT: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None
    ) -> torch.Tensor:
        """The logits (B, T, V), or of a body the last hidden states (B, T, D).

        Args:
            ids_BT: token ids.
            mask: bool (B, 1, T, T), True where a query may attend; None is causal attention.
            positions: (B, T), left out with the mask, and where the model takes none.
        """
        given: dict[str, Any] = {"use_cache": False}
        if mask is not None:
            given["attention_mask"] = self._in_its_form(mask)
            if self._takes_positions:
                given["position_ids"] = positions
        output: torch.Tensor = self._module(ids_BT, **given)[0]
        return output

    @cached_property
    def isolates(self) -> bool:
        """Whether packed documents do not see each other: one behind another gives what it gives
        alone. Tried once, on random ids."""
        ids_1T, half = probe_row(self._ids).to(self._module.device), _PROBE_TOKENS // 2
        segments_1T = torch.arange(_PROBE_TOKENS, device=ids_1T.device)[None] // half
        mask, positions = document_mask(segments_1T), document_positions(segments_1T)
        with torch.no_grad():
            try:
                packed = self(ids_1T, mask, positions)
            except (RuntimeError, TypeError, ValueError):  # a class that takes no such mask
                return False
            alone = self(ids_1T[:, half:], None, None)
        difference = (packed[:, half:] - alone).float().norm()
        return bool(difference <= _PROBE_TOLERANCE * alone.float().norm())

    def _in_its_form(self, mask_B1TT: torch.Tensor) -> torch.Tensor:
        """SDPA takes a bool mask; other implementations add theirs to the scores."""
        if self._module.config._attn_implementation == "sdpa":
            return mask_B1TT
        dtype = self._module.dtype
        lowest = torch.finfo(dtype).min
        return torch.zeros_like(mask_B1TT, dtype=dtype).masked_fill_(~mask_B1TT, lowest)


def probe_row(ids: int) -> torch.Tensor:
    """A row (1, T) of random ids below `ids`, always the same, to try a model on."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(ids, (1, _PROBE_TOKENS), generator=generator)
