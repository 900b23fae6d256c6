"""What the library's sampler has to know of each row, and what it answers."""

from __future__ import annotations

import numpy as np

from tallyformer.inference.engine.runner import (
    Choice,
    Chosen,
    LogitsRow,
    logits_not_finite,
    nothing_allowed,
)
from tallyformer.inference.native.c_functions import CDraw

_NOT_FINITE, _NOTHING_ALLOWED = 1, 2
"""`tally::Drawn`."""
_HOTTEST = 1e30
"""All ids have the same weight; at what float32 does not hold, banned ones would, too."""


def fill(draw: CDraw, row: LogitsRow, logits_V: np.ndarray) -> dict[str, np.ndarray]:
    """Put a row's settings in place.

    Args:
        draw: all zeros.
        row: the settings.
        logits_V: of the ids that have a text.

    Returns:
        The arrays that `draw` points to, by its fields: they must live as long.
    """
    params = row.params
    arrays: dict[str, np.ndarray] = {}
    draw.uniform = row.uniform
    draw.temperature = min(params.temperature, _HOTTEST)
    draw.top_p, draw.min_p = params.top_p, params.min_p
    draw.top_k, draw.independent = params.top_k, params.mode == "independent"
    draw.repetition = params.repetition_penalty
    draw.frequency, draw.presence = params.frequency_penalty, params.presence_penalty
    draw.given = -1 if row.given is None else row.given
    draw.alternatives = -1 if row.logprobs is None else row.logprobs
    if draw.frequency or draw.presence:
        arrays["generated"] = np.fromiter(row.counts.keys(), np.int32, len(row.counts))
        arrays["times"] = np.fromiter(row.counts.values(), np.int32, len(row.counts))
        draw.generated_count = len(row.counts)
    if draw.repetition != 1:
        arrays["seen"] = np.array(sorted({*row.prompt_ids, *row.counts}), np.int32)
        draw.seen_count = len(arrays["seen"])
    if params.logit_bias or row.banned:
        bias = {**params.logit_bias, **dict.fromkeys(row.banned, -np.inf)}
        arrays["bias_ids"] = np.fromiter(bias.keys(), np.int32, len(bias))
        arrays["biases"] = np.fromiter(bias.values(), np.float32, len(bias))
        draw.bias_count = len(bias)
    if row.allowed is not None:
        arrays["allowed"] = np.ascontiguousarray(row.allowed, np.uint32)
    if row.logprobs:
        arrays["alternative_ids"] = np.empty(row.logprobs, np.int32)
        arrays["alternative_logprobs"] = np.empty(row.logprobs, np.float32)
    if row.process is not None and row.given is None:
        arrays["processed"] = row.process(logits_V)
    for name, array in arrays.items():
        setattr(draw, name, array.ctypes.data)
    return arrays


def choice(draw: CDraw, arrays: dict[str, np.ndarray]) -> Chosen:
    """The result in a draw, whose arrays `fill` made."""
    if draw.drawn == _NOT_FINITE:
        return logits_not_finite()
    if draw.drawn == _NOTHING_ALLOWED:
        return nothing_allowed()
    if draw.alternatives < 0:
        return Choice(draw.id)
    if not draw.alternatives:
        return Choice(draw.id, draw.logprob)
    ids, logprobs = arrays["alternative_ids"].tolist(), arrays["alternative_logprobs"].tolist()
    alternatives = tuple((i, p) for i, p in zip(ids, logprobs, strict=True) if i >= 0)
    return Choice(draw.id, draw.logprob, alternatives)
