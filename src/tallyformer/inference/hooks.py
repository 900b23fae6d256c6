"""What a caller may have a say in, token by token. Loads no torch.

`SamplingParams` takes functions that make these, one for every sample, so that each may keep a
state of its own. They are called in the thread that steps, so they must be quick. What one of them
raises ends its own answer and reaches its own caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class TokenMask(Protocol):
    """Which ids may follow: a grammar, say; see `grammar`."""

    def __call__(self, ids: Sequence[int]) -> np.ndarray | None:
        """Say which ids may follow.

        Args:
            ids: the answer's so far. From call to call it grows, mostly by one.

        Returns:
            None: any id. Else one bit an id: bit i % 32 of word i // 32; uint32 (ceil(V / 32),).
        """


class LogitsProcessor(Protocol):
    """What the draw is made from: a sampling method of one's own, say."""

    def __call__(self, logits_V: np.ndarray, ids: Sequence[int]) -> np.ndarray:
        """Change the model's logits, before penalties, bias, bans, temperature and filters.

        Args:
            logits_V: one for each of the V ids that have a text, float32; a copy, free to change.
            ids: the answer's so far. From call to call it grows by one.

        Returns:
            The logits that are used instead (V,). -inf leaves an id out; one at least stays.
        """


class ForcedIds(Protocol):
    """Which ids must follow: the result of a calculation, say."""

    def __call__(self, text: str) -> Sequence[int]:
        """Say which ids must follow.

        Args:
            text: the answer's so far, as far as its characters are whole.

        Returns:
            Ids that follow now, whatever the model finds likely; none to let it continue.
        """
