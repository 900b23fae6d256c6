"""Which tokens may follow, and with what probability: pure tensor functions.

Shapes: N rows, K kept candidates, V vocabulary. Probabilities are float64, so that sums over a
large vocabulary and the draw from them are exact enough to forget the order of summation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_FIRST_WIDTH = 1024


@dataclass(frozen=True)
class Filters:
    """Settings of N rows, each a tensor of shape (N,). No row has temperature 0."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    independent: Tensor


def subtract_penalties(
    logits_V: Tensor, counts: Mapping[int, int], frequency: float, presence: float
) -> Tensor:
    """logit - frequency * count - presence, for every id that has been generated.

    Args:
        counts: id -> how often it was generated; the prompt does not count.
    """
    if not counts or (frequency == 0 and presence == 0):
        return logits_V
    ids = torch.tensor(list(counts), device=logits_V.device)
    times = torch.tensor(list(counts.values()), device=logits_V.device, dtype=logits_V.dtype)
    return logits_V.index_add(0, ids, -(frequency * times + presence))


def candidates(logits_NV: Tensor, filters: Filters) -> tuple[Tensor, Tensor]:
    """The tokens that may follow and their probabilities.

    Where every row has a `top_k`, only the greatest of them are selected, never the whole
    vocabulary sorted; without one, as many as hold the mass that `top_p` or `min_p` asks for.

    Returns:
        ids_NK in falling order of probability, and probs_NK, float64, each row with sum 1 and
        exactly 0 for what its filters exclude.
    """
    scaled_NV = _scaled(logits_NV, filters.temperature)
    vocabulary = logits_NV.shape[1]
    limit_N = torch.where(filters.top_k > 0, filters.top_k, vocabulary).clamp(max=vocabulary)
    log_mass_N1 = scaled_NV.logsumexp(dim=1, keepdim=True)
    widest = int(limit_N.max())
    least = int((limit_N * (filters.top_k > 0)).max())
    width = widest if bool((filters.top_k > 0).all()) else min(max(_FIRST_WIDTH, least), widest)
    while True:
        top_NK, ids_NK = scaled_NV.topk(width, dim=1)
        probs_NK = (top_NK - log_mass_N1).exp()
        kept_NK = _kept(probs_NK, limit_N, filters)
        if width >= widest or not bool(kept_NK[:, -1].any()):
            break
        width = min(8 * width, widest)
    kept_probs_NK = probs_NK * kept_NK
    return ids_NK, kept_probs_NK / kept_probs_NK.sum(dim=1, keepdim=True)


def full_distribution(logits_NV: Tensor, temperature_N: Tensor) -> Tensor:
    """softmax(logits / temperature) over the whole vocabulary, probs_NV, float64."""
    return _scaled(logits_NV, temperature_N).softmax(dim=1)


def draw(probs_NK: Tensor, uniforms_N: Tensor) -> Tensor:
    """Positions (N,) drawn by inverting the cumulative distribution.

    Args:
        probs_NK: rows of non-negative weights.
        uniforms_N: one number in [0, 1) a row.

    A position of probability 0 is never drawn: the cumulative sum is flat there, and the first
    place where it exceeds the target is one where it rose.
    """
    cumulative_NK = probs_NK.cumsum(dim=1)
    target_N1 = (uniforms_N * cumulative_NK[:, -1]).unsqueeze(1)
    return torch.searchsorted(cumulative_NK, target_N1, right=True).squeeze(1)


def _scaled(logits_NV: Tensor, temperature_N: Tensor) -> Tensor:
    """(logits - max) / temperature, float64: no overflow however small the temperature."""
    wide_NV = logits_NV.double()
    return (wide_NV - wide_NV.amax(dim=1, keepdim=True)) / temperature_N.double().unsqueeze(1)


def _kept(probs_NK: Tensor, limit_N: Tensor, filters: Filters) -> Tensor:
    """Which candidates pass all filters; each filter keeps the front of a row."""
    rank_K = torch.arange(probs_NK.shape[1], device=probs_NK.device)
    in_top_k_NK = rank_K < limit_N.unsqueeze(1)
    inside_NK = probs_NK * in_top_k_NK
    whole_N1 = torch.where(filters.independent | (filters.top_k == 0), 1.0, inside_NK.sum(1))
    before_NK = inside_NK.cumsum(dim=1) - inside_NK
    # top_p = 1 keeps all: the sum before the last token may round to 1.
    reached_NK = before_NK >= (filters.top_p * whole_N1).unsqueeze(1)
    in_top_p_NK = ~reached_NK | (filters.top_p == 1).unsqueeze(1)
    in_min_p_NK = probs_NK >= filters.min_p.unsqueeze(1) * probs_NK[:, :1]
    return in_top_k_NK & in_top_p_NK & in_min_p_NK
