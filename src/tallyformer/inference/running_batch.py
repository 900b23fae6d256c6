"""Rows that are generated together, with their shared key-value cache and sliding windows.

The cache is aligned to the right: the newest token of every row is in the last column, and
columns to the left of a row's first token are masked. Finished rows leave the batch.

When a row's window holds as many tokens as the model's context, generation continues: the last
half of them is computed again as a window of its own, with positions from 0. The model thus never
sees a position it was not trained for, and between a half and a whole context of text.

Shapes: B rows, S cached columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tallyformer.inference.cache import RowCache
from tallyformer.model.protocol import CACHE_NAME


class RunningBatch:
    """The windows of several rows and their cache.

    Args:
        model: a transformers causal language model on `device`, in eval mode.
        context: the most tokens the model sees at once, at least 2.
        prompts: ids of each row, at least one each. Of a prompt longer than the context its last
            `context - 1` ids are used.
    """

    def __init__(
        self, model: Any, *, context: int, prompts: Sequence[Sequence[int]], device: torch.device
    ) -> None:
        assert context >= 2 and all(prompts)
        self._model = model
        self._context = context
        self._device = device
        self._windows = [_last(prompt, context) for prompt in prompts]
        self._cache = RowCache()
        self._mask_BS = torch.zeros(len(prompts), 0, dtype=torch.long, device=device)

    @torch.inference_mode()
    def prefill(self) -> Tensor:
        """Compute all windows; return the logits (B, V) that follow each."""
        logits_BV, self._cache, self._mask_BS = self._compute(self._windows)
        return logits_BV

    @torch.inference_mode()
    def step(self, ids: Sequence[int]) -> Tensor:
        """Append one id to every row; return the logits (B, V) that follow."""
        full = [i for i, window in enumerate(self._windows) if len(window) == self._context]
        for window, new_id in zip(self._windows, ids, strict=True):
            window.append(new_id)
        if len(full) == len(self._windows):
            self._windows = [self._shortened(window) for window in self._windows]
            return self.prefill()
        logits_BV = self._extend(ids)
        if full:
            self._slide(full, logits_BV)
        return logits_BV

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        if len(rows) == len(self._windows):
            return
        index = torch.tensor(rows, dtype=torch.long, device=self._device)
        self._windows = [self._windows[i] for i in rows]
        self._mask_BS = self._mask_BS[index]
        self._cache.select_rows(index)
        self._trim()

    def _shortened(self, window: list[int]) -> list[int]:
        return window[-max(1, self._context // 2) :]

    def _extend(self, ids: Sequence[int]) -> Tensor:
        """Logits (B, V) after one more id a row; those of a full row have no meaning."""
        one_B1 = torch.ones(len(ids), 1, dtype=torch.long, device=self._device)
        self._mask_BS = torch.cat([self._mask_BS, one_B1], dim=1)
        output = self._model(
            input_ids=torch.tensor(ids, device=self._device).unsqueeze(1),
            attention_mask=self._mask_BS,
            position_ids=(self._mask_BS.sum(dim=1, keepdim=True) - 1).clamp(max=self._context - 1),
            use_cache=True,
            **{CACHE_NAME: self._cache},
        )
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def _slide(self, rows: Sequence[int], logits_BV: Tensor) -> None:
        """Shorten full windows and put their new cache and logits in place of the old."""
        for i in rows:
            self._windows[i] = self._shortened(self._windows[i])
        new_logits, new_cache, new_mask = self._compute([self._windows[i] for i in rows])
        index = torch.tensor(rows, dtype=torch.long, device=self._device)
        logits_BV[index] = new_logits
        width = new_mask.shape[1]
        self._mask_BS[index] = 0
        self._mask_BS[index, -width:] = new_mask
        self._cache.replace_rows(index, new_cache)
        self._trim()

    def _trim(self) -> None:
        """Drop the columns on the left that no row uses."""
        longest = max((len(window) for window in self._windows), default=0)
        if longest == self._mask_BS.shape[1]:
            return
        self._mask_BS = self._mask_BS[:, -longest:]
        self._cache.keep_newest(longest)

    def _compute(self, windows: Sequence[Sequence[int]]) -> tuple[Tensor, RowCache, Tensor]:
        """Logits (B, V) after each window, its cache, and its mask (B, S)."""
        width = max(len(window) for window in windows)
        ids_BS = torch.zeros(len(windows), width, dtype=torch.long)
        mask_BS = torch.zeros_like(ids_BS)
        for row, window in enumerate(windows):
            ids_BS[row, width - len(window) :] = torch.tensor(window)
            mask_BS[row, width - len(window) :] = 1
        ids_BS, mask_BS = ids_BS.to(self._device), mask_BS.to(self._device)
        output = self._model(
            input_ids=ids_BS,
            attention_mask=mask_BS,
            position_ids=(mask_BS.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
            **{CACHE_NAME: RowCache()},
        )
        return output.logits[:, -1], getattr(output, CACHE_NAME), mask_BS


def _last(prompt: Sequence[int], context: int) -> list[int]:
    return list(prompt) if len(prompt) <= context else list(prompt[-(context - 1) :])
