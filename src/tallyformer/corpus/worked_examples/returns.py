"""Returns: percentage change, holding period return, real return, dividend yield."""

from __future__ import annotations

from tallyformer.corpus.worked_examples.example import Worked
from tallyformer.corpus.worked_examples.numbers import Draw, equation, number, percent


def percentage_change(draw: Draw) -> Worked:
    """Change = (new - old) / old; the answer says whether it is an increase or a decrease."""
    old = draw.number("old", 10, 500, 5)
    new = draw.number("new", 10, 500, 5)
    if old == new:
        new = draw.number("new", 505, 600, 5)
    change = (new - old) / old
    a, b = number(old), number(new)
    word = "increase" if new > old else "decrease"
    difference = f"({b} - {a}) / {a}" if new > old else f"({a} - {b}) / {a}"
    return Worked(
        prompts=(
            f"A price moves from ${a} to ${b}. What is the percentage change?",
            f"What is the percentage change from {a} to {b}?",
            f"Sales were ${a} last year and ${b} this year. By what percentage did they change?",
        ),
        steps="Percentage change is the difference divided by the old value. "
        f"{equation(difference, abs(change), as_percent=True)}.",
        conclusion="The change is ",
        answer=f"{'an' if word == 'increase' else 'a'} {word} of {percent(abs(change))}",
    )


def gain_on_investment(draw: Draw) -> Worked:
    """Return = (end - start) / start, for a gain."""
    start = draw.number("start", 100, 9900, 100)
    gain = draw.number("gain", 10, 990, 10)
    s, e = number(start), number(start + gain)
    return Worked(
        prompts=(
            f"I bought shares for ${s} and sold them for ${e}. What is my return in percent?",
            f"An investment of ${s} is now worth ${e}. What is the simple return?",
            f"What return does an investor make who pays ${s} and later receives ${e}?",
        ),
        steps="The simple return is the gain divided by the amount invested. "
        f"{equation(f'({e} - {s}) / {s}', gain / start, as_percent=True)}.",
        conclusion="The return is ",
        answer=percent(gain / start),
    )


def holding_period_return(draw: Draw) -> Worked:
    """HPR = (end price - start price + income) / start price; never a loss here."""
    start = draw.number("start", 10, 200, 2)
    rise = draw.number("rise", 0, 60)
    income = draw.number("income", 1, 12)
    value = (rise + income) / start
    s, e, i = number(start), number(start + rise), number(income)
    return Worked(
        prompts=(
            f"A share bought at ${s} is sold at ${e} after paying a dividend of ${i}. What is "
            "the holding period return?",
            f"What is the holding period return with a purchase price of ${s}, a sale price of "
            f"${e} and dividends of ${i}?",
            f"I paid ${s} for a share, received ${i} in dividends and sold it for ${e}. What "
            "is my total return in percent?",
        ),
        steps="Holding period return is price gain plus income, divided by the price paid. "
        f"{equation(f'({e} - {s} + {i}) / {s}', value, as_percent=True)}.",
        conclusion="The holding period return is ",
        answer=percent(value),
    )


def real_return(draw: Draw) -> Worked:
    """Real return = (1 + nominal) / (1 + inflation) - 1 (Fisher), nominal above inflation."""
    inflation = draw.number("inflation", 1, 8, "0.5")
    nominal = inflation + draw.number("excess", "0.5", "12", "0.25")
    value = (1 + nominal / 100) / (1 + inflation / 100) - 1
    n, i = number(nominal), number(inflation)
    expression = f"{number(1 + nominal / 100)} / {number(1 + inflation / 100)} - 1"
    return Worked(
        prompts=(
            f"An investment returns {n}% while inflation is {i}%. What is the exact real return?",
            f"What is the real return when the nominal return is {n}% and inflation is {i}%? Use "
            "the Fisher equation.",
            f"Inflation is {i}% and my savings earn {n}%. What is my exact real rate of return?",
        ),
        steps="The real return is (1 + nominal return) / (1 + inflation) - 1. "
        f"{equation(expression, value, as_percent=True)}.",
        conclusion="The real return is ",
        answer=percent(value),
    )


def dividend_yield(draw: Draw) -> Worked:
    """Dividend yield = yearly dividend / share price."""
    price = draw.number("price", 10, 200, 2)
    dividend = draw.number("dividend", "0.25", "9", "0.25")
    p, d = number(price), f"{dividend:.2f}"
    return Worked(
        prompts=(
            f"A share costs ${p} and pays a dividend of ${d} a year. What is the dividend yield?",
            f"What is the dividend yield of a share priced at ${p} with a yearly dividend of ${d}?",
            f"Calculate the dividend yield: dividend ${d} a year, share price ${p}.",
        ),
        steps="Dividend yield is the yearly dividend divided by the share price. "
        f"{equation(f'{d} / {p}', dividend / price, as_percent=True)}.",
        conclusion="The dividend yield is ",
        answer=percent(dividend / price),
    )


KINDS = {
    "percentage-change": percentage_change,
    "simple-return": gain_on_investment,
    "holding-period-return": holding_period_return,
    "real-return": real_return,
    "dividend-yield": dividend_yield,
}
