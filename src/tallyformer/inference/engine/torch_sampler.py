"""From logits to the next id of each row, with torch.

Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tallyformer.errors import CheckpointError
from tallyformer.inference.distribution import (
    Filters,
    candidates,
    draw,
    full_distribution,
    subtract_penalties,
)
from tallyformer.inference.engine.runner import Choice, Row
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.device import has_float64


def choose(logits_NV: Tensor, rows: Sequence[Row]) -> list[Choice]:
    """Choose the next id of every row; a choice does not depend on the other rows.

    Raises:
        CheckpointError: a row of logits is not finite.
    """
    logits_NV = logits_NV.float()
    if not has_float64(logits_NV.device):
        logits_NV = logits_NV.cpu()
    _check_finite(logits_NV)
    ids = [
        drawn if row.given is None else row.given
        for drawn, row in zip(_drawn(_processed(logits_NV, rows), rows), rows, strict=True)
    ]
    choices = [Choice(token_id) for token_id in ids]
    for i, row in enumerate(rows):
        if row.logprobs is not None:
            choices[i] = _with_logprobs(logits_NV[i], ids[i], row.logprobs)
    return choices


def _processed(logits_NV: Tensor, rows: Sequence[Row]) -> Tensor:
    """The logits after penalties and bans; the argument is left as it is."""
    if not any(_has_penalty(r.params) or r.banned or r.allowed is not None for r in rows):
        return logits_NV
    return torch.stack([_processed_row(*pair) for pair in zip(logits_NV, rows, strict=True)])


def _processed_row(logits_V: Tensor, row: Row) -> Tensor:
    params = row.params
    if _has_penalty(params):
        logits_V = subtract_penalties(
            logits_V, row.counts, params.frequency_penalty, params.presence_penalty
        )
    if row.banned:
        banned = torch.tensor(sorted(row.banned), device=logits_V.device)
        logits_V = logits_V.index_fill(0, banned, -torch.inf)
    if row.allowed is not None:
        bits = np.unpackbits(row.allowed.view(np.uint8), bitorder="little")[: len(logits_V)]
        allowed_V = torch.from_numpy(bits).to(logits_V.device, torch.bool)
        logits_V = logits_V.masked_fill(~allowed_V, -torch.inf)
    return logits_V


def _with_logprobs(logits_V: Tensor, token_id: int, count: int) -> Choice:
    logprobs_V = logits_V.double().log_softmax(dim=0)
    values, ids = logprobs_V.topk(min(count, len(logprobs_V)))
    ordered = sorted(zip(ids.tolist(), values.tolist(), strict=True), key=lambda p: (-p[1], p[0]))
    return Choice(token_id, float(logprobs_V[token_id]), tuple(ordered))


def _drawn(logits_NV: Tensor, rows: Sequence[Row]) -> list[int]:
    chosen_N = logits_NV.argmax(dim=1)
    for belongs, drawn in (
        (_is_plain, _drawn_plain),
        (_has_top_k, _drawn_filtered),
        (_is_filtered_without_top_k, _drawn_filtered),
    ):
        group = [i for i, row in enumerate(rows) if row.given is None and belongs(row.params)]
        if group:
            chosen_N[group] = drawn(logits_NV[group], [rows[i] for i in group])
    return chosen_N.tolist()


def _has_penalty(params: SamplingParams) -> bool:
    return params.frequency_penalty != 0 or params.presence_penalty != 0


def _is_plain(params: SamplingParams) -> bool:
    unfiltered = params.top_k == 0 and params.top_p == 1 and params.min_p == 0
    return not params.greedy and unfiltered


def _has_top_k(params: SamplingParams) -> bool:
    return not params.greedy and params.top_k > 0


def _is_filtered_without_top_k(params: SamplingParams) -> bool:
    return not params.greedy and params.top_k == 0 and not _is_plain(params)


def _drawn_plain(logits_NV: Tensor, rows: Sequence[Row]) -> Tensor:
    temperature_N = _column(rows, "temperature", logits_NV.device)
    return draw(full_distribution(logits_NV, temperature_N), _uniforms(rows, logits_NV.device))


def _drawn_filtered(logits_NV: Tensor, rows: Sequence[Row]) -> Tensor:
    ids_NK, probs_NK = candidates(logits_NV, filters_of(rows, logits_NV.device))
    position_N = draw(probs_NK, _uniforms(rows, logits_NV.device))
    return ids_NK.gather(1, position_N.unsqueeze(1)).squeeze(1)


def filters_of(rows: Sequence[Row], device: torch.device) -> Filters:
    """The rows' settings as tensors."""
    return Filters(
        temperature=_column(rows, "temperature", device),
        top_k=_column(rows, "top_k", device).long(),
        top_p=_column(rows, "top_p", device),
        min_p=_column(rows, "min_p", device),
        independent=torch.tensor([r.params.mode == "independent" for r in rows], device=device),
    )


def _column(rows: Sequence[Row], field: str, device: torch.device) -> Tensor:
    values = [float(getattr(row.params, field)) for row in rows]
    return torch.tensor(values, dtype=torch.float64, device=device)


def _uniforms(rows: Sequence[Row], device: torch.device) -> Tensor:
    return torch.tensor([row.uniform for row in rows], dtype=torch.float64, device=device)


def _check_finite(logits_NV: Tensor) -> None:
    if not bool(logits_NV.amax(dim=1).isfinite().all()):
        raise CheckpointError(
            "the model's logits are not finite, so its weights are damaged or the dtype is too "
            "narrow. Load it with dtype='float32', or export the model again"
        )
