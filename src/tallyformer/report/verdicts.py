"""What may be said of a measured change: no more than its sample allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tallyformer.evaluation.statistics import ENOUGH, Difference
from tallyformer.report.tables import signed_percent

TOO_FEW = "too few to tell"
NO_CLEAR = "no clear change"
NO_CONTROL = (
    "without a control (the same steps with alpha 0), so longer training alone may explain it"
)


def verdict(row: Mapping[str, Any]) -> str:
    """lower, higher, no clear change, too few to tell; "" if the row has no change.

    Args:
        row: of results.json, with `passages` and `change`.
    """
    found = change_of(row)
    if found is None:
        return ""
    sign = found.sign(row.get("passages", 0))
    return TOO_FEW if sign is None else {-1: "lower", 0: NO_CLEAR, 1: "higher"}[sign]


def change_of(row: Mapping[str, Any]) -> Difference | None:
    """By how many nats a token the loss has changed, if that was measured."""
    change = row.get("change")
    return Difference(change["value"], change["low"], change["high"]) if change else None


def perplexity_change(nats: float) -> str:
    """A change of the loss as one of the perplexity: −4.8%."""
    return signed_percent(1.0, math.exp(min(nats, 700.0)))


def interval(change: Difference | None) -> str:
    """The interval of a change of the perplexity: −6.0% to −3.1%."""
    return f"{perplexity_change(change.low)} to {perplexity_change(change.high)}" if change else ""


def judged(row: Mapping[str, Any], what: str) -> str:
    """The clause behind a perplexity before and after: its change, interval and sample.

    Args:
        row: of results.json.
        what: the passages' name, in the plural.
    """
    count = row.get("passages")
    if count is None:
        return f" on {what}"
    of = f" on {count:,} {what if count != 1 else what.removesuffix('s')}"
    found = change_of(row)
    if count < ENOUGH:
        return f"{of}: {TOO_FEW}"
    if found is None:
        return of
    clear = "" if found.sign(count) else f": {NO_CLEAR}"
    return f"{of} ({perplexity_change(found.value)}, 95% interval {interval(found)}){clear}"
