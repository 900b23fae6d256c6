"""Interest: simple, compound, future and present value, effective rate, yearly saving."""

from __future__ import annotations

from tallyformer.corpus.worked_examples.example import Worked
from tallyformer.corpus.worked_examples.numbers import (
    Draw,
    amount,
    equation,
    number,
    percent,
    years_text,
)


def simple_interest(draw: Draw) -> Worked:
    """Interest = principal x rate x years."""
    principal = draw.number("principal", 200, 9900, 100)
    rate = draw.number("rate", 1, 12)
    years = draw.number("years", 1, 8)
    interest = principal * rate / 100 * years
    p, r, span = number(principal), number(rate), years_text(years)
    expression = f"{p} x {number(rate / 100)} x {number(years)}"
    return Worked(
        prompts=(
            f"What is the simple interest on ${p} at {r}% a year for {span}?",
            f"How much simple interest does ${p} earn at {r}% a year over {span}?",
            f"A deposit of ${p} pays {r}% simple interest a year. How much interest does it pay "
            f"in {span}?",
            f"I lend ${p} for {span} at {r}% simple interest a year. What interest do I receive?",
        ),
        steps=f"Simple interest is principal times rate times years. "
        f"{equation(expression, interest)}.",
        conclusion="The simple interest is $",
        answer=amount(interest),
    )


def compound_interest(draw: Draw) -> Worked:
    """Interest = principal x ((1 + rate)^years - 1)."""
    principal = draw.number("principal", 500, 20_000, 100)
    rate = draw.number("rate", 1, 12)
    years = draw.number("years", 2, 6)
    growth = 1 + rate / 100
    interest = principal * growth**years - principal
    p, r, span = number(principal), number(rate), years_text(years)
    expression = f"{p} x {number(growth)}^{years} - {p}"
    return Worked(
        prompts=(
            f"How much compound interest does ${p} earn at {r}% a year in {span}?",
            f"What is the interest on ${p} after {span} at {r}% compounded every year?",
            f"You invest ${p} at {r}% a year, compounded annually, for {span}. "
            "How much interest do you earn?",
        ),
        steps="Compound interest is the grown amount minus the principal. "
        f"{equation(expression, interest)}.",
        conclusion="The compound interest is $",
        answer=amount(interest),
    )


def future_value(draw: Draw) -> Worked:
    """FV = PV x (1 + rate)^years."""
    present = draw.number("present", 500, 20_000, 100)
    rate = draw.number("rate", 1, 12)
    years = draw.number("years", 2, 8)
    growth = 1 + rate / 100
    value = present * growth**years
    p, r, span = number(present), number(rate), years_text(years)
    expression = f"{p} x {number(growth)}^{years}"
    return Worked(
        prompts=(
            f"What is the future value of ${p} after {span} at {r}% a year, compounded annually?",
            f"What will ${p} grow to in {span} at {r}% compound interest a year?",
            f"I put ${p} away at {r}% a year, compounded once a year. How much is there after "
            f"{span}?",
        ),
        steps="Future value is present value times (1 + rate) to the power of the years. "
        f"{equation(expression, value)}.",
        conclusion="The future value is $",
        answer=amount(value),
    )


def present_value(draw: Draw) -> Worked:
    """PV = FV / (1 + rate)^years."""
    future = draw.number("future", 500, 20_000, 100)
    rate = draw.number("rate", 1, 12)
    years = draw.number("years", 1, 8)
    growth = 1 + rate / 100
    value = future / growth**years
    f, r, span = number(future), number(rate), years_text(years)
    expression = f"{f} / {number(growth)}^{years}"
    return Worked(
        prompts=(
            f"What is the present value of ${f} due in {span} at a discount rate of {r}% a year?",
            f"What is ${f} to be received in {span} worth today, discounted at {r}% a year?",
            f"How much must I invest now at {r}% a year to have ${f} in {span}?",
        ),
        steps="Present value is the future amount divided by (1 + rate) to the power of the "
        f"years. {equation(expression, value)}.",
        conclusion="The present value is $",
        answer=amount(value),
    )


def effective_annual_rate(draw: Draw) -> Worked:
    """EAR = (1 + nominal / periods)^periods - 1."""
    nominal = draw.number("nominal", 1, 24, "0.1")
    name = draw.word("compounding", ("half-yearly", "quarterly", "monthly"))
    periods = {"half-yearly": 2, "quarterly": 4, "monthly": 12}[name]
    rate = (1 + nominal / 100 / periods) ** periods - 1
    expression = f"(1 + {number(nominal / 100)} / {periods})^{periods} - 1"
    return Worked(
        prompts=(
            f"What is the effective annual rate of {number(nominal)}% compounded {name}?",
            f"A loan charges a nominal {number(nominal)}% a year, compounded {name}. "
            "What is the effective annual rate?",
            f"An account quotes {number(nominal)}% with {name} compounding. "
            "What does it pay in effect over a year, as a percentage?",
        ),
        steps="The effective annual rate is (1 + nominal rate / periods) to the power of the "
        f"periods, minus 1. {equation(expression, rate, as_percent=True)}.",
        conclusion="The effective annual rate is ",
        answer=percent(rate),
    )


def yearly_saving(draw: Draw) -> Worked:
    """Future value of an ordinary annuity: payment x ((1 + rate)^years - 1) / rate."""
    payment = draw.number("payment", 100, 5000, 50)
    rate = draw.number("rate", 1, 10)
    years = draw.number("years", 2, 10)
    growth = 1 + rate / 100
    value = payment * (growth**years - 1) / (rate / 100)
    p, r, span = number(payment), number(rate), years_text(years)
    expression = f"{p} x ({number(growth)}^{years} - 1) / {number(rate / 100)}"
    return Worked(
        prompts=(
            f"You save ${p} at the end of every year at {r}% a year. How much do you have after "
            f"{span}?",
            f"What is the future value of an annuity of ${p} a year for {span} at {r}%, paid at "
            "the end of each year?",
            f"What do yearly payments of ${p}, made at each year's end, grow to in {span} at "
            f"{r}% a year?",
        ),
        steps="The future value of an annuity is payment x ((1 + rate)^years - 1) / rate. "
        f"{equation(expression, value)}.",
        conclusion="The savings grow to $",
        answer=amount(value),
    )


KINDS = {
    "simple-interest": simple_interest,
    "compound-interest": compound_interest,
    "future-value": future_value,
    "present-value": present_value,
    "effective-annual-rate": effective_annual_rate,
    "yearly-saving": yearly_saving,
}
