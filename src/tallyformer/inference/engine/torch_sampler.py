"""From logits to the next id of each row, with torch, all rows at once.

Order: what a hook changes, repetition penalty, then what is subtracted or added (frequency and
presence penalties, bias), then bans and masks (`_changed`); temperature, filters and the draw
(`distribution`).

Shapes: N rows, V vocabulary, K alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from tallyformer.errors import TallyFormerError
from tallyformer.inference.distribution import (
    Filters,
    candidates,
    draw,
    full_distribution,
    greatest,
)
from tallyformer.inference.engine.runner import (
    Choice,
    Chosen,
    LogitsRow,
    logits_not_finite,
    nothing_allowed,
)
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.device import has_float64

Change = Callable[[Tensor, Sequence[LogitsRow]], None]
"""Changes logits_NV in place."""


def choose(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> list[Chosen]:
    """Choose the next id of every row; a choice does not depend on the other rows.

    A row whose logits are not finite, or for which nothing may follow, gets an error of its own.
    """
    logits_NV = logits_NV.float()
    if not has_float64(logits_NV.device):
        logits_NV = logits_NV.cpu()
    sound = logits_NV.amax(dim=1).isfinite().tolist()
    if not all(sound):
        left = [i for i, is_sound in enumerate(sound) if is_sound]
        chosen = iter(choose(logits_NV[left], [rows[i] for i in left]) if left else ())
        return [next(chosen) if is_sound else logits_not_finite() for is_sound in sound]
    changed_NV = _changed(logits_NV, rows)
    errors = {} if changed_NV is logits_NV else _errors(changed_NV, rows)
    if errors:
        changed_NV[list(errors)] = 0.0  # of a copy; what is drawn from it is not given out
    drawn = _drawn(changed_NV, rows)
    ids = [i if row.given is None else row.given for i, row in zip(drawn, rows, strict=True)]
    choices: list[Chosen] = [Choice(token_id) for token_id in ids]
    wanted = [i for i, row in enumerate(rows) if row.logprobs is not None]
    if wanted:
        of_wanted = [ids[i] for i in wanted], [rows[i].logprobs or 0 for i in wanted]
        scored = _with_logprobs(logits_NV[wanted], *of_wanted)
        for i, choice in zip(wanted, scored, strict=True):
            choices[i] = choice
    return [errors.get(i, choice) for i, choice in enumerate(choices)]


def _errors(changed_NV: Tensor, rows: Sequence[LogitsRow]) -> dict[int, TallyFormerError]:
    """Of rows whose settings left nothing that may follow."""
    most = changed_NV.amax(dim=1).tolist()
    return {
        i: nothing_allowed() if largest == -math.inf else logits_not_finite()
        for i, (largest, row) in enumerate(zip(most, rows, strict=True))
        if row.given is None and not math.isfinite(largest)
    }


def _changed(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> Tensor:
    """The logits that are drawn from; the argument is left as it is."""
    changes: list[tuple[Change, Callable[[LogitsRow], bool]]] = [
        (_process, lambda row: row.process is not None),
        (_divide_repeated, lambda row: row.params.repetition_penalty != 1),
        (_add, lambda row: bool(row.params.logit_bias) or _has_penalty(row.params)),
        (_ban, lambda row: bool(row.banned)),
        (_leave_allowed, lambda row: row.allowed is not None),
    ]
    changed_NV = logits_NV
    for change, concerns in changes:
        if any(row.given is None and concerns(row) for row in rows):
            if changed_NV is logits_NV:
                changed_NV = logits_NV.clone()
            change(changed_NV, rows)
    return changed_NV


def _process(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> None:
    for logits_V, row in zip(logits_NV, rows, strict=True):
        if row.process is not None and row.given is None:
            processed = torch.from_numpy(row.process(logits_V.cpu().numpy()))
            logits_V.copy_(processed)


def _divide_repeated(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> None:
    """Repetition penalty (Keskar et al. 2019, section 4.1) of ids of prompt and answer."""
    places = [
        (n, token_id, row.params.repetition_penalty)
        for n, row in enumerate(rows)
        if row.params.repetition_penalty != 1
        for token_id in {*row.prompt_ids, *row.counts}
    ]
    if places:
        at, penalties = _at(logits_NV, places)
        found = logits_NV[at]
        logits_NV[at] = torch.where(found < 0, found * penalties, found / penalties)


def _add(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> None:
    """Bias, and penalties: logit - frequency * count - presence, of every generated id."""
    places = []
    for n, row in enumerate(rows):
        params = row.params
        places += [(n, token_id, bias) for token_id, bias in params.logit_bias.items()]
        if _has_penalty(params):
            frequency, presence = params.frequency_penalty, params.presence_penalty
            places += [(n, i, -(frequency * times + presence)) for i, times in row.counts.items()]
    if places:
        at, amounts = _at(logits_NV, places)
        logits_NV.index_put_(at, amounts, accumulate=True)


def _ban(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> None:
    at, never = _at(
        logits_NV, [(n, i, -torch.inf) for n, row in enumerate(rows) for i in row.banned]
    )
    logits_NV[at] = never


def _leave_allowed(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> None:
    masks = [(n, row.allowed) for n, row in enumerate(rows) if row.allowed is not None]
    words = np.stack([words for _, words in masks])
    bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, : logits_NV.shape[1]]
    numbers = [n for n, _ in masks]
    allowed = torch.from_numpy(bits).to(logits_NV.device, torch.bool)
    logits_NV[numbers] = logits_NV[numbers].masked_fill(~allowed, -torch.inf)


def _at(
    logits_NV: Tensor, places: Iterable[tuple[int, int, float]]
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Rows, ids and amounts as tensors."""
    numbers, ids, amounts = zip(*places, strict=True)
    index = torch.tensor([numbers, ids], device=logits_NV.device)
    return (index[0], index[1]), torch.tensor(amounts, device=logits_NV.device)


def _with_logprobs(logits_NV: Tensor, ids: list[int], counts: list[int]) -> list[Choice]:
    """Choices with their log-probability and so many alternatives."""
    wide_NV = logits_NV.double()
    mass_N1 = wide_NV.logsumexp(dim=1, keepdim=True)
    ids_N1 = torch.tensor(ids, device=logits_NV.device)[:, None]
    own = (wide_NV.gather(1, ids_N1) - mass_N1).squeeze(1).tolist()
    most = min(max(counts), logits_NV.shape[1])
    if not most:
        return [Choice(token_id, logprob) for token_id, logprob in zip(ids, own, strict=True)]
    values_NK, best_NK = greatest(logits_NV, most)
    best, logprobs = best_NK.tolist(), (values_NK.double() - mass_N1).tolist()
    return [
        Choice(ids[n], own[n], tuple(zip(best[n][:count], logprobs[n][:count], strict=True)))
        for n, count in enumerate(counts)
    ]


def _drawn(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> list[int]:
    drawn: dict[int, int] = {}
    for belongs, method in (
        (_is_greedy, _most_probable),
        (_is_plain, _drawn_plain),
        (_has_top_k, _drawn_filtered),
        (_is_filtered_without_top_k, _drawn_filtered),
    ):
        group = [i for i, row in enumerate(rows) if row.given is None and belongs(row.params)]
        if group:
            part_NV = logits_NV if len(group) == len(rows) else logits_NV[group]
            found_N = method(part_NV, [rows[i] for i in group])
            drawn |= dict(zip(group, found_N.tolist(), strict=True))
    return [drawn.get(i, -1) for i in range(len(rows))]


def _has_penalty(params: SamplingParams) -> bool:
    return params.frequency_penalty != 0 or params.presence_penalty != 0


def _is_greedy(params: SamplingParams) -> bool:
    return params.greedy


def _is_plain(params: SamplingParams) -> bool:
    unfiltered = params.top_k == 0 and params.top_p == 1 and params.min_p == 0
    return not params.greedy and unfiltered


def _has_top_k(params: SamplingParams) -> bool:
    return not params.greedy and params.top_k > 0


def _is_filtered_without_top_k(params: SamplingParams) -> bool:
    return not params.greedy and params.top_k == 0 and not _is_plain(params)


def _most_probable(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> Tensor:
    return logits_NV.argmax(dim=1)


def _drawn_plain(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> Tensor:
    temperature_N = _column(rows, "temperature", logits_NV.device)
    return draw(full_distribution(logits_NV, temperature_N), _uniforms(rows, logits_NV.device))


def _drawn_filtered(logits_NV: Tensor, rows: Sequence[LogitsRow]) -> Tensor:
    ids_NK, probs_NK = candidates(logits_NV, filters_of(rows, logits_NV.device))
    position_N = draw(probs_NK, _uniforms(rows, logits_NV.device))
    return ids_NK.gather(1, position_N.unsqueeze(1)).squeeze(1)


def filters_of(rows: Sequence[LogitsRow], device: torch.device) -> Filters:
    """The rows' settings as tensors."""
    return Filters(
        temperature=_column(rows, "temperature", device),
        top_k=_column(rows, "top_k", device).long(),
        top_p=_column(rows, "top_p", device),
        min_p=_column(rows, "min_p", device),
        independent=torch.tensor([r.params.mode == "independent" for r in rows], device=device),
    )


def _column(rows: Sequence[LogitsRow], field: str, device: torch.device) -> Tensor:
    values = [float(getattr(row.params, field)) for row in rows]
    return torch.tensor(values, dtype=torch.float64, device=device)


def _uniforms(rows: Sequence[LogitsRow], device: torch.device) -> Tensor:
    return torch.tensor([row.uniform for row in rows], dtype=torch.float64, device=device)
