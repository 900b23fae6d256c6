"""Which tokens may follow, and with what probability: pure tensor functions.

Shapes: N rows, K kept candidates, V vocabulary. Probabilities are float64, so that sums over a
large vocabulary and the draw from them are exact enough to forget the order of summation.
"""

from __future__ import annotations

import math
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


def greatest(logits_NV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` greatest numbers of each row in falling order, of equal ones the first.

    The greatest numbers are in as many groups, those with the greatest maxima. So the vocabulary is
    only passed over for the maxima of groups, and what is selected from is about
    2 sqrt(count V) numbers.

    Args:
        logits_NV: none of them NaN; compared as float32.
        count: 1 to V.

    Returns:
        values_NK and ids_NK.
    """
    rows, vocabulary = logits_NV.shape
    size = math.isqrt(vocabulary // count)
    if size < 2:
        ids_NK = _first_keys(logits_NV, count)
        return logits_NV.gather(1, ids_NK), ids_NK
    groups = -(-vocabulary // size)
    padded = torch.nn.functional.pad(logits_NV, (0, groups * size - vocabulary), value=-torch.inf)
    grouped_NGS = padded.view(rows, groups, size)
    # In the order of their ids, so that of equal numbers the first is the first.
    group_NK = _first_keys(grouped_NGS.amax(dim=2), count).sort(dim=1).values
    inside_NKS = grouped_NGS.gather(1, group_NK[:, :, None].expand(-1, -1, size))
    place_NK = _first_keys(inside_NKS.flatten(1), count)
    ids_NK = group_NK.gather(1, place_NK // size) * size + place_NK % size
    return padded.gather(1, ids_NK), ids_NK.clamp(max=vocabulary - 1)


def candidates(logits_NV: Tensor, filters: Filters) -> tuple[Tensor, Tensor]:
    """The tokens that may follow and their probabilities.

    Where every row has a `top_k`, only the greatest of them are selected, never the whole
    vocabulary sorted; without one, as many as hold the mass that `top_p` or `min_p` asks for.

    Returns:
        ids_NK in falling order of probability, and probs_NK, float64, each row with sum 1 and
        exactly 0 for what its filters exclude.
    """
    limit_N = _limit(filters, logits_NV.shape[1])
    whole_N1 = _whole_mass(logits_NV, filters) if bool(_measured(filters).any()) else None
    widest = int(limit_N.max())
    least = int((limit_N * (filters.top_k > 0)).max())
    width = widest if bool((filters.top_k > 0).all()) else min(max(_FIRST_WIDTH, least), widest)
    while True:
        ids_NK, probs_NK, enough_N = _bounded_candidates(logits_NV, filters, width, whole_N1)
        if width >= widest or bool(enough_N.all()):
            return ids_NK, probs_NK
        width = min(8 * width, widest)


def _bounded_candidates(
    logits_NV: Tensor, filters: Filters, width: int, whole_N1: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The same from the `width` greatest logits; no shape and no branch depends on numbers.

    Args:
        logits_NV: see `greatest`.
        filters: of the rows.
        width: K, 1 to V.
        whole_N1: `_whole_mass`; None is right where no row measures `top_p` on the vocabulary.

    Returns:
        ids_NK, probs_NK, and enough_N: whether more candidates would change nothing.
    """
    limit_N = _limit(filters, logits_NV.shape[1])
    top_NK, ids_NK = greatest(logits_NV, width)
    wide_NK = top_NK.double()
    temperature_N1 = filters.temperature.double().unsqueeze(1)
    weights_NK = ((wide_NK - wide_NK[:, :1]) / temperature_N1).exp()
    kept_NK = _kept(weights_NK, limit_N, whole_N1, filters)
    kept_weights_NK = weights_NK * kept_NK
    probs_NK = kept_weights_NK / kept_weights_NK.sum(dim=1, keepdim=True)
    return ids_NK, probs_NK, ~kept_NK[:, -1] | (limit_N <= width)


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


def _first_keys(numbers_NM: Tensor, count: int) -> Tensor:
    """Places of the greatest numbers, in falling order, of equal ones the first: (N, count)."""
    # A float's bits, read as a whole number, are in its order; below 0 in the opposite one.
    bits_NM = (numbers_NM.float() + 0.0).view(torch.int32)
    ordered_NM = bits_NM ^ ((bits_NM >> 31) & 0x7FFFFFFF)
    size = numbers_NM.shape[1]
    places_M = torch.arange(size, device=numbers_NM.device)
    keys_NM = (ordered_NM.long() << 32) + (size - 1 - places_M)
    return keys_NM.topk(count, dim=1).indices


def _whole_mass(logits_NV: Tensor, filters: Filters) -> Tensor:
    """The weights' sum (N, 1) over the vocabulary, relative to the greatest weight."""
    return _scaled(logits_NV, filters.temperature).exp().sum(dim=1, keepdim=True)


def _measured(filters: Filters) -> Tensor:
    """Which rows measure `top_p` on the vocabulary."""
    return (filters.independent | (filters.top_k == 0)) & (filters.top_p < 1)


def _limit(filters: Filters, vocabulary: int) -> Tensor:
    """The most ids (N,) that `top_k` leaves."""
    return torch.where(filters.top_k > 0, filters.top_k, vocabulary).clamp(max=vocabulary)


def _kept(weights_NK: Tensor, limit_N: Tensor, whole_N1: Tensor | None, filters: Filters) -> Tensor:
    """Which candidates pass all filters; each filter keeps the front of a row."""
    rank_K = torch.arange(weights_NK.shape[1], device=weights_NK.device)
    in_top_k_NK = rank_K < limit_N.unsqueeze(1)
    inside_NK = weights_NK * in_top_k_NK
    mass_N1 = inside_NK.sum(dim=1, keepdim=True)
    if whole_N1 is not None:
        of_all_N1 = (filters.independent | (filters.top_k == 0)).unsqueeze(1)
        mass_N1 = torch.where(of_all_N1, whole_N1, mass_N1)
    before_NK = inside_NK.cumsum(dim=1) - inside_NK
    # top_p = 1 keeps all: the sum before the last token may round to 1.
    reached_NK = before_NK >= filters.top_p.unsqueeze(1) * mass_N1
    in_top_p_NK = ~reached_NK | (filters.top_p == 1).unsqueeze(1)
    in_min_p_NK = weights_NK >= filters.min_p.unsqueeze(1) * weights_NK[:, :1]
    return in_top_k_NK & in_top_p_NK & in_min_p_NK
