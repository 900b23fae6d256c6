"""Everyday business sums: break-even, income tax, sales tax, discount."""

from __future__ import annotations

from tallyformer.corpus.worked_examples.example import Worked
from tallyformer.corpus.worked_examples.numbers import Draw, amount, equation, number


def break_even(draw: Draw) -> Worked:
    """Break-even units = fixed costs / (price - variable cost); always a whole number here."""
    units = draw.number("units", 20, 900, 10)
    variable = draw.number("variable", 2, 40)
    contribution = draw.number("contribution", 2, 30)
    fixed = units * contribution
    f, p, v = number(fixed), number(variable + contribution), number(variable)
    return Worked(
        prompts=(
            f"Fixed costs are ${f}, the price is ${p} and the variable cost is ${v} a unit. How "
            "many units must be sold to break even?",
            f"A product sells for ${p} and costs ${v} a unit to make. Fixed costs are ${f}. What "
            "is the break-even point in units?",
            f"What is the break-even quantity with a price of ${p}, a variable cost of ${v} and "
            f"fixed costs of ${f}?",
        ),
        steps="Break-even units are fixed costs divided by price minus variable cost. "
        f"{f} / ({p} - {v}) = {number(units)}.",
        conclusion="The number of units to break even is ",
        answer=number(units),
    )


def income_tax(draw: Draw) -> Worked:
    """Tax in two bands: low rate up to a limit, high rate above it."""
    limit = draw.number("limit", 10_000, 30_000, 1000)
    above = draw.number("above", 1000, 40_000, 500)
    low = draw.number("low", 5, 20, 5)
    high = low + draw.number("step", 5, 25, 5)
    tax = limit * low / 100 + above * high / 100
    i, m = number(limit + above), number(limit)
    expression = f"{m} x {number(low / 100)} + ({i} - {m}) x {number(high / 100)}"
    return Worked(
        prompts=(
            f"Income up to ${m} is taxed at {low}% and the rest at {high}%. What is the tax on "
            f"an income of ${i}?",
            f"I earn ${i}. The tax rate is {low}% on the first ${m} and {high}% above that. How "
            "much tax do I pay?",
            f"How much tax is due on ${i} if the rate is {low}% up to ${m} and {high}% beyond?",
        ),
        steps=f"Each rate applies only to the income inside its band. {equation(expression, tax)}.",
        conclusion="The tax is $",
        answer=amount(tax),
    )


def sales_tax(draw: Draw) -> Worked:
    """Price with tax = price x (1 + rate)."""
    price = draw.number("price", 10, 990, 10)
    rate = draw.number("rate", 2, 25)
    value = price * (1 + rate / 100)
    p, r = number(price), number(rate)
    return Worked(
        prompts=(
            f"A laptop costs ${p} before a sales tax of {r}%. What is the price with tax?",
            f"What is the total price of goods for ${p} plus {r}% sales tax?",
            f"Sales tax is {r}%. How much do I pay in all for something priced at ${p} before tax?",
        ),
        steps=f"Add the tax to the price. {equation(f'{p} x {number(1 + rate / 100)}', value)}.",
        conclusion="The price with tax is $",
        answer=amount(value),
    )


def discount(draw: Draw) -> Worked:
    """Discounted price = price x (1 - discount)."""
    price = draw.number("price", 10, 990, 10)
    rate = draw.number("rate", 2, 60)
    value = price * (1 - rate / 100)
    p, r = number(price), number(rate)
    return Worked(
        prompts=(
            f"A supplier gives a {r}% discount on an invoice of ${p}. How much is to be paid?",
            f"What is the price of a ${p} item after a discount of {r}%?",
            f"An invoice of ${p} is reduced by {r}%. What amount remains?",
        ),
        steps="Take the discount off the price. "
        f"{equation(f'{p} x {number(1 - rate / 100)}', value)}.",
        conclusion="The reduced price is $",
        answer=amount(value),
    )


KINDS = {
    "break-even": break_even,
    "income-tax": income_tax,
    "sales-tax": sales_tax,
    "discount": discount,
}
