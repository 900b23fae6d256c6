"""The draw as work that is the same at every step, so that a CUDA graph can hold it.

No shape and no branch depends on numbers of the device, and it is few operators, as each costs a
launch. Rows that need more than temperature and filters are drawn by `torch_sampler`, and so are
those that need more candidates than there are.

Shapes: N rows, V vocabulary, V' the same with room to whole groups, K candidates, G groups of S.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tallyformer.inference.engine.runner import LogitsRow
from tallyformer.inference.sampling_params import SamplingParams

CANDIDATES = 128
"""K: the greatest `top_k`."""
GROUP = 16
"""S: numbers of a group. The K greatest numbers lie in the K groups with the greatest maxima."""

Method = Literal["greedy", "of candidates", "of the vocabulary"]
"""Filters measure `top_p` on the candidates alone, or need the whole vocabulary's mass as well."""

NOT_DRAWN = -1
GREEDY = (1.0, 1.0, math.inf, 0.0, 0.0, 0.0)
"""The settings of a greedy row: one candidate."""
SETTINGS = len(GREEDY)
_MEASURES = 4
"""The place of whether the vocabulary's mass is measured."""


def planned(rows: Sequence[LogitsRow]) -> tuple[list[int], np.ndarray, Method]:
    """Which rows `drawn` can draw, what it has to know of each of them, and how it draws them.

    Returns:
        Places of F rows; of each temperature, most candidates, the mass that is kept, the least
        weight, whether that mass is of the whole vocabulary, and the random number, (F, 6); and
        the method.
    """
    # Rows of one request share their settings, which are looked at once.
    known: dict[int, int | None] = {}
    kinds: list[tuple[float, ...]] = []
    places, kind_of, uniforms = [], [], []
    for i, row in enumerate(rows):
        name = id(row.params)
        if name not in known:
            settings = _settings_of(row.params)
            known[name] = None if settings is None else len(kinds)
            kinds += [settings] if settings else []
        kind = known[name]
        # Nothing but the request's settings may concern it.
        plain = row.given is None and row.allowed is None and row.process is None
        if plain and kind is not None and row.logprobs is None and not row.banned:
            places.append(i)
            kind_of.append(kind)
            uniforms.append(row.uniform)
    settings_F6 = np.array(kinds or [GREEDY])[kind_of]
    settings_F6[:, -1] = uniforms
    taken = [settings for settings in kinds if settings is not GREEDY]
    if not taken:
        return places, settings_F6, "greedy"
    measures = any(settings[_MEASURES] for settings in taken)
    return places, settings_F6, "of the vocabulary" if measures else "of candidates"


def _settings_of(p: SamplingParams) -> tuple[float, ...] | None:
    """All with 0 for the random number; None where the device cannot draw so."""
    changes = p.repetition_penalty != 1 or p.frequency_penalty != 0 or p.presence_penalty != 0
    if changes or p.logit_bias:
        return None
    if p.greedy:
        return GREEDY
    if not (0 < p.top_k <= CANDIDATES or (p.top_k == 0 and (p.top_p < 1 or p.min_p > 0))):
        return None
    measures = p.top_p < 1 and (p.top_k == 0 or p.mode == "independent")
    mass = p.top_p if p.top_p < 1 else math.inf
    return (p.temperature, p.top_k or math.inf, mass, p.min_p, float(measures), 0.0)


def room(vocab_size: int) -> int:
    """V': the width of a row of logits that `drawn` takes."""
    return -(-vocab_size // GROUP) * GROUP


def drawn(logits_NV: Tensor, settings_N6: Tensor, method: Method) -> Tensor:
    """An id for each row (N,); `NOT_DRAWN` where logits are not finite or candidates too few.

    Args:
        logits_NV: (N, V'), contiguous, minus infinity beyond the vocabulary.
        settings_N6: of `planned`, float64, like `method`.
        method: draws all of these rows.
    """
    if method == "greedy":
        top_N, ids_N = logits_NV.max(dim=1)
        return torch.where(_is_finite(top_N), ids_N, NOT_DRAWN)
    values_NK, ids_NK = _candidates(logits_NV)
    temperature_N1, most_N1, mass_N1, least_N1, measured_N1, uniform_N1 = settings_N6[
        :, :, None
    ].unbind(dim=1)
    wide_NK = values_NK.double()
    top_N1 = wide_NK[:, :1]
    weights_NK = ((wide_NK - top_N1) / temperature_N1).exp()
    in_top_k_NK = _ranks(weights_NK) < most_N1
    inside_NK = weights_NK * in_top_k_NK
    whole_N1 = inside_NK.sum(dim=1, keepdim=True)
    if method == "of the vocabulary":
        of_all_N1 = ((logits_NV.double() - top_N1) / temperature_N1).exp().sum(1, keepdim=True)
        whole_N1 = torch.where(measured_N1 > 0, of_all_N1, whole_N1)
    before_NK = inside_NK.cumsum(dim=1) - inside_NK
    # The first weight is 1.
    passes_NK = (before_NK < mass_N1 * whole_N1) & (weights_NK >= least_N1)
    kept_NK = passes_NK & in_top_k_NK
    sums_NK = (weights_NK * kept_NK).cumsum(dim=1)
    place_N1 = torch.searchsorted(sums_NK, uniform_N1 * sums_NK[:, -1:], right=True)
    # NaN would be drawn behind the last one, which a GPU does not forgive.
    ids_N1 = ids_NK.gather(1, place_N1.clamp(max=ids_NK.shape[1] - 1))
    lacks_N1 = kept_NK[:, -1:] & (most_N1 > ids_NK.shape[1])
    return torch.where(_is_finite(top_N1) > lacks_N1, ids_N1, NOT_DRAWN).squeeze(1)


def _candidates(logits_NV: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest logits in falling order, of equal ones the first, and their ids: (N, K).

    Sorting some thousand numbers a row is one operator, and needs no key that makes equal ones
    differ.
    """
    rows, width = logits_NV.shape
    if width <= GROUP * CANDIDATES:
        values_NV, ids_NV = logits_NV.sort(dim=1, descending=True, stable=True)
        return values_NV[:, :CANDIDATES], ids_NV[:, :CANDIDATES]
    grouped_NGS = logits_NV.view(rows, -1, GROUP)
    order_NG = grouped_NGS.amax(dim=2).sort(dim=1, descending=True, stable=True).indices
    # In the order of their ids, so that of equal numbers the first is the first.
    group_NK = order_NG[:, :CANDIDATES].sort(dim=1).values
    inside_NKS = grouped_NGS.gather(1, group_NK[:, :, None].expand(-1, -1, GROUP))
    values_NM, places_NM = inside_NKS.flatten(1).sort(dim=1, descending=True, stable=True)
    place_NK = places_NM[:, :CANDIDATES]
    ids_NK = group_NK.gather(1, place_NK // GROUP) * GROUP + place_NK % GROUP
    return values_NM[:, :CANDIDATES], ids_NK


def _ranks(numbers_NK: Tensor) -> Tensor:
    return torch.arange(numbers_NK.shape[1], device=numbers_NK.device)


def _is_finite(numbers: Tensor) -> Tensor:
    """The same as `isfinite`, in two operators."""
    return numbers - numbers == 0
