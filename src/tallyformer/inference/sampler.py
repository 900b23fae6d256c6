"""From logits to the next id of each sequence.

Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

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
from tallyformer.inference.engine.sequence import Sequence
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.device import has_float64


def sample(logits_NV: Tensor, sequences: list[Sequence]) -> list[int]:
    """Choose the next id of every row.

    A sampled row takes exactly one number from its sequence's own generator, so its choice does
    not depend on the other rows.

    Raises:
        CheckpointError: a row of logits is not finite.
    """
    logits_NV = logits_NV.float()
    if not has_float64(logits_NV.device):
        logits_NV = logits_NV.cpu()
    if any(_has_penalty(s.params) for s in sequences):
        rows = zip(logits_NV, sequences, strict=True)
        logits_NV = torch.stack([_penalised(row_V, sequence) for row_V, sequence in rows])
    _check_finite(logits_NV)
    chosen_N = logits_NV.argmax(dim=1)
    for belongs, choose in (
        (_is_plain, _sample_plain),
        (_has_top_k, _sample_filtered),
        (_is_filtered_without_top_k, _sample_filtered),
    ):
        group = [i for i, sequence in enumerate(sequences) if belongs(sequence.params)]
        if group:
            chosen_N[group] = choose(logits_NV[group], [sequences[i] for i in group])
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


def _sample_plain(logits_NV: Tensor, sequences: list[Sequence]) -> Tensor:
    temperature_N = _column(sequences, "temperature", logits_NV.device)
    return draw(full_distribution(logits_NV, temperature_N), _uniforms(sequences, logits_NV.device))


def _sample_filtered(logits_NV: Tensor, sequences: list[Sequence]) -> Tensor:
    ids_NK, probs_NK = candidates(logits_NV, filters_of(sequences, logits_NV.device))
    position_N = draw(probs_NK, _uniforms(sequences, logits_NV.device))
    return ids_NK.gather(1, position_N.unsqueeze(1)).squeeze(1)


def filters_of(sequences: list[Sequence], device: torch.device) -> Filters:
    """The sequences' settings as tensors."""
    return Filters(
        temperature=_column(sequences, "temperature", device),
        top_k=_column(sequences, "top_k", device).long(),
        top_p=_column(sequences, "top_p", device),
        min_p=_column(sequences, "min_p", device),
        independent=torch.tensor(
            [s.params.mode == "independent" for s in sequences], device=device
        ),
    )


def _column(sequences: list[Sequence], field: str, device: torch.device) -> Tensor:
    values = [float(getattr(s.params, field)) for s in sequences]
    return torch.tensor(values, dtype=torch.float64, device=device)


def _uniforms(sequences: list[Sequence], device: torch.device) -> Tensor:
    numbers = [torch.rand((), generator=s.generator, dtype=torch.float64) for s in sequences]
    return torch.stack(numbers).to(device)


def _penalised(logits_V: Tensor, sequence: Sequence) -> Tensor:
    params = sequence.params
    return subtract_penalties(
        logits_V, sequence.counts, params.frequency_penalty, params.presence_penalty
    )


def _check_finite(logits_NV: Tensor) -> None:
    if not bool(logits_NV.amax(dim=1).isfinite().all()):
        raise CheckpointError(
            "the model's logits are not finite, so its weights are damaged or the dtype is too "
            "narrow. Load it with dtype='float32', or export the model again"
        )
