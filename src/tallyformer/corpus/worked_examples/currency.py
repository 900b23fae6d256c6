"""Currency conversion. The rates are made up; a question always states its own."""

from __future__ import annotations

from tallyformer.corpus.worked_examples.example import Worked
from tallyformer.corpus.worked_examples.numbers import Draw, amount, equation, number

CURRENCIES = ("EUR", "GBP", "CHF", "CAD", "AUD", "SEK")


def to_dollars(draw: Draw) -> Worked:
    """Dollars = foreign amount x dollars per foreign unit."""
    code = draw.word("currency", CURRENCIES)
    foreign = draw.number("foreign", 50, 5000, 50)
    rate = draw.number("rate", "0.50", "1.60", "0.02")
    value = foreign * rate
    f, r = number(foreign), f"{rate:.2f}"
    return Worked(
        prompts=(
            f"One {code} costs {r} USD. How many US dollars is {f} {code}?",
            f"Convert {f} {code} to USD at a rate of {r} USD per {code}.",
            f"I have {f} {code}. At 1 {code} = {r} USD, how much is that in USD?",
        ),
        steps="Multiply the amount by the dollars paid for one unit. "
        f"{equation(f'{f} x {r}', value)}.",
        conclusion="It is USD ",
        answer=amount(value),
    )


def from_dollars(draw: Draw) -> Worked:
    """Foreign amount = dollars / dollars per foreign unit."""
    code = draw.word("currency", CURRENCIES)
    dollars = draw.number("dollars", 50, 5000, 50)
    rate = draw.number("rate", "0.50", "1.60", "0.05")
    value = dollars / rate
    d, r = number(dollars), f"{rate:.2f}"
    return Worked(
        prompts=(
            f"One {code} costs {r} USD. How many {code} do I get for {d} USD?",
            f"Convert {d} USD to {code} when 1 {code} costs {r} USD.",
            f"The rate is {r} USD per {code}. How much is {d} USD in {code}?",
        ),
        steps="Divide the dollars by the dollars paid for one unit. "
        f"{equation(f'{d} / {r}', value)}.",
        conclusion=f"It is {code} ",
        answer=amount(value),
    )


KINDS = {"currency-to-dollars": to_dollars, "currency-from-dollars": from_dollars}
