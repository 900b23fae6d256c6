"""The numbers of a problem: drawn on a record, computed exactly, rounded half up."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

from tallyformer.keyed_random import RandomStream

NOTHING = Decimal("1e-40")
"""Less is what the digits that are kept leave of 0; no result here is as near to a whole cent."""


class Draw:
    """Random numbers that remember what they were.

    Whatever enters a problem is drawn here, so `values` identifies the problem: it decides
    whether the problem belongs to training or is held out.
    """

    def __init__(self, generator: RandomStream):
        self._generator = generator
        self.values: dict[str, Decimal | str] = {}

    def number(self, name: str, low: str | int, high: str | int, step: str | int = 1) -> Decimal:
        """One of low, low + step, ... up to `high` (included when a step lands on it)."""
        first, last, width = Decimal(low), Decimal(high), Decimal(step)
        value = first + width * self._generator.below(int((last - first) / width) + 1)
        self.values[name] = value
        return value

    def word(self, name: str, options: Sequence[str]) -> str:
        """One of `options`."""
        value = options[self._generator.below(len(options))]
        self.values[name] = value
        return value


def half_up(value: Decimal, places: int = 2) -> Decimal:
    """`value` with this many decimals; a half goes away from zero."""
    return value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)


def amount(value: Decimal) -> str:
    """Money to the cent: 1,250.00."""
    return f"{half_up(value):,}"


def percent(share: Decimal) -> str:
    """A share as a percentage with two decimals: 0.125 is 12.50%."""
    return f"{half_up(share * 100):,}%"


def number(value: Decimal) -> str:
    """The shortest exact form: 1,200 or 0.045."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def equation(expression: str, value: Decimal, *, as_percent: bool = False) -> str:
    """`expression = value`, with "(rounded)" where two decimals do not hold the exact value."""
    shown = percent(value) if as_percent else amount(value)
    exact = value * 100 if as_percent else value
    is_exact = abs(half_up(exact) - exact) < NOTHING
    return f"{expression} = {shown}" + ("" if is_exact else " (rounded)")


def years_text(years: Decimal) -> str:
    """`1 year`, `3 years`."""
    return f"{number(years)} year" + ("" if years == 1 else "s")
