"""The draw as work that is the same at every step, so that a CUDA graph can hold it.

No shape and no branch depends on numbers of the device. Rows that need more than temperature and
filters are drawn by `torch_sampler`, and so are those that need more candidates than there are.

Shapes: N rows, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from tallyformer.inference.distribution import Filters, bounded_candidates, draw, whole_mass
from tallyformer.inference.engine.runner import LogitsRow
from tallyformer.inference.sampling_params import SamplingParams

CANDIDATES = 128
"""K: the greatest `top_k`."""

Method = Literal["greedy", "of candidates", "of the vocabulary"]
"""Filters measure `top_p` on the candidates alone, or need the whole vocabulary's mass as well."""

NOT_DRAWN = -1
GREEDY = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
"""The settings of a greedy row: one candidate."""
SETTINGS = len(GREEDY)


def fits(row: LogitsRow) -> bool:
    """Whether a row's id can be drawn here."""
    p = row.params
    as_they_are = (
        row.given is None
        and row.allowed is None
        and row.process is None
        and row.logprobs is None
        and not row.banned
        and not p.logit_bias
        and p.repetition_penalty == 1
        and p.frequency_penalty == 0
        and p.presence_penalty == 0
    )
    filtered = 0 < p.top_k <= CANDIDATES or (p.top_k == 0 and (p.top_p < 1 or p.min_p > 0))
    return as_they_are and (p.greedy or filtered)


def settings_of(row: LogitsRow) -> tuple[float, ...]:
    """What `drawn` has to know of a row."""
    p = row.params
    if p.greedy:
        return GREEDY
    return (p.temperature, p.top_k, p.top_p, p.min_p, float(p.mode == "independent"), row.uniform)


def method_of(rows: Iterable[LogitsRow]) -> Method:
    """The cheapest method that draws all of these."""
    drawn = [row.params for row in rows if not row.params.greedy]
    if not drawn:
        return "greedy"
    return "of the vocabulary" if any(map(_measures_vocabulary, drawn)) else "of candidates"


def drawn(logits_NV: Tensor, settings_N6: Tensor, method: Method) -> Tensor:
    """An id for each row (N,); `NOT_DRAWN` where logits are not finite or candidates too few."""
    wide_NV = logits_NV.float()
    sound_N = wide_NV.amax(dim=1).isfinite()
    if method == "greedy":
        return torch.where(sound_N, wide_NV.argmax(dim=1), NOT_DRAWN)
    temperature_N, top_k_N, top_p_N, min_p_N, independent_N, uniform_N = settings_N6.unbind(dim=1)
    filters = Filters(temperature_N, top_k_N.long(), top_p_N, min_p_N, independent_N > 0)
    whole_N1 = whole_mass(wide_NV, filters) if method == "of the vocabulary" else None
    width = min(CANDIDATES, wide_NV.shape[1])
    ids_NK, probs_NK, enough_N = bounded_candidates(wide_NV, filters, width, whole_N1)
    # NaN would be drawn behind the last one, which a GPU does not forgive.
    place_N = draw(probs_NK, uniform_N.contiguous()).clamp(max=width - 1)
    ids_N = ids_NK.gather(1, place_N.unsqueeze(1)).squeeze(1)
    return torch.where(sound_N & enough_N, ids_N, NOT_DRAWN)


def _measures_vocabulary(params: SamplingParams) -> bool:
    return params.top_p < 1 and (params.top_k == 0 or params.mode == "independent")
