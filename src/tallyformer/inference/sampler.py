"""From logits to the next id of each request.

Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from tallyformer.inference.request import Request
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.device import has_float64


def sample(logits_NV: Tensor, requests: Sequence[Request]) -> list[int]:
    """Choose the next id of every row.

    A sampled row takes exactly one number from its request's own generator, so its choice does
    not depend on the other rows.

    Raises:
        CheckpointError: a row of logits is not finite.
    """
    logits_NV = logits_NV.float()
    if not has_float64(logits_NV.device):
        logits_NV = logits_NV.cpu()
    if any(_has_penalty(r.params) for r in requests):
        rows = zip(logits_NV, requests, strict=True)
        logits_NV = torch.stack([_penalised(row_V, request) for row_V, request in rows])
    _check_finite(logits_NV)
    chosen_N = logits_NV.argmax(dim=1)
    for belongs, choose in (
        (_is_plain, _sample_plain),
        (_has_top_k, _sample_filtered),
        (_is_filtered_without_top_k, _sample_filtered),
    ):
        group = [i for i, request in enumerate(requests) if belongs(request.params)]
        if group:
            chosen_N[group] = choose(logits_NV[group], [requests[i] for i in group])
    return [int(i) for i in chosen_N]


def _has_penalty(params: SamplingParams) -> bool:
    return params.frequency_penalty != 0 or params.presence_penalty != 0


def _is_plain(params: SamplingParams) -> bool:
    unfiltered = params.top_k == 0 and params.top_p == 1 and params.min_p == 0
    return not params.greedy and unfiltered


def _has_top_k(params: SamplingParams) -> bool:
    return not params.greedy and params.top_k > 0


def _is_filtered_without_top_k(params: SamplingParams) -> bool:
    return not params.greedy and params.top_k == 0 and not _is_plain(params)


def _sample_plain(logits_NV: Tensor, requests: Sequence[Request]) -> Tensor:
    temperature_N = _column(requests, "temperature", logits_NV.device)
    return draw(full_distribution(logits_NV, temperature_N), _uniforms(requests, logits_NV.device))


def _sample_filtered(logits_NV: Tensor, requests: Sequence[Request]) -> Tensor:
    ids_NK, probs_NK = candidates(logits_NV, filters_of(requests, logits_NV.device))
    position_N = draw(probs_NK, _uniforms(requests, logits_NV.device))
    return ids_NK.gather(1, position_N.unsqueeze(1)).squeeze(1)


def filters_of(requests: Sequence[Request], device: torch.device) -> Filters:
    """The requests' settings as tensors."""
    return Filters(
        temperature=_column(requests, "temperature", device),
        top_k=_column(requests, "top_k", device).long(),
        top_p=_column(requests, "top_p", device),
        min_p=_column(requests, "min_p", device),
        independent=torch.tensor([r.params.mode == "independent" for r in requests], device=device),
    )


def _column(requests: Sequence[Request], field: str, device: torch.device) -> Tensor:
    values = [float(getattr(r.params, field)) for r in requests]
    return torch.tensor(values, dtype=torch.float64, device=device)


def _uniforms(requests: Sequence[Request], device: torch.device) -> Tensor:
    numbers = [torch.rand((), generator=r.generator, dtype=torch.float64) for r in requests]
    return torch.stack(numbers).to(device)


def _penalised(logits_V: Tensor, request: Request) -> Tensor:
    params = request.params
    return subtract_penalties(
        logits_V, request.counts, params.frequency_penalty, params.presence_penalty
    )


def _check_finite(logits_NV: Tensor) -> None:
    if not bool(logits_NV.amax(dim=1).isfinite().all()):
        raise CheckpointError(
            "the model's logits are not finite, so its weights are damaged or the dtype is too "
            "narrow. Load it with dtype='float32', or export the model again"
        )
