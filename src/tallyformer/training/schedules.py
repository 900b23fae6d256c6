"""Learning rate over a run, as a pure function of the step.

A schedule without state cannot be resumed wrongly: the rate of step 700 is the same whoever asks.
"""

from __future__ import annotations

import math

from tallyformer.config.training import ScheduleSection


def learning_rate_factor(schedule: ScheduleSection, step: int, total: int) -> float:
    """Share of the top learning rate that optimizer step `step` uses.

    Args:
        schedule: the kind and its numbers.
        step: 0-based, below `total`.
        total: optimizer steps of the whole run.

    Returns:
        A factor in [0, 1]. The first step of a warm-up of W steps gets 1/W, not 0.
    """
    if not 0 <= step < total:
        raise ValueError(f"step {step} is outside a run of {total} steps")
    if schedule.name == "onecycle":
        return _one_cycle(schedule, step, total)
    warmup = min(total, math.ceil(schedule.warmup_fraction * total))
    if step < warmup:
        return (step + 1) / warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "wsd":
        start = max(warmup, total - math.ceil(schedule.decay_fraction * total))
        return _mix(1.0, schedule.final_fraction, (step - start) / max(1, total - start))
    done = (step - warmup) / (total - warmup)
    if schedule.name == "cosine":
        done = _cosine(done)
    return _mix(1.0, schedule.final_fraction, done)


def _one_cycle(schedule: ScheduleSection, step: int, total: int) -> float:
    """Smith & Topin 2018, https://arxiv.org/abs/1708.07120, cosine form; torch's OneCycleLR."""
    low = 1.0 / schedule.div
    top_at = schedule.warmup_fraction * total - 1
    if step <= top_at:
        return _mix(low, 1.0, _cosine(step / top_at if top_at > 0 else 1.0))
    length = max(total - 1 - top_at, 1.0)
    return _mix(1.0, low / schedule.final_div, _cosine((step - top_at) / length))


def _mix(start: float, end: float, share: float) -> float:
    return start + (end - start) * min(max(share, 0.0), 1.0)


def _cosine(share: float) -> float:
    return 0.5 - 0.5 * math.cos(math.pi * min(max(share, 0.0), 1.0))
