"""Depreciation: straight-line charge and book value, declining-balance charge."""

from __future__ import annotations

from decimal import Decimal

from tallyformer.corpus.worked_examples.example import Worked
from tallyformer.corpus.worked_examples.numbers import Draw, amount, equation, number, years_text


def straight_line(draw: Draw) -> Worked:
    """Charge a year = (cost - residual value) / useful life."""
    cost, residual, life = _asset(draw)
    charge = (cost - residual) / life
    c, r, span = number(cost), number(residual), years_text(life)
    return Worked(
        prompts=(
            f"A machine costs ${c}, has a residual value of ${r} and lasts {span}. What is the "
            "straight-line depreciation a year?",
            f"What is the yearly straight-line depreciation of equipment bought for ${c} with a "
            f"residual value of ${r} and a useful life of {span}?",
            f"Calculate straight-line depreciation per year: cost ${c}, residual value ${r}, "
            f"useful life {span}.",
        ),
        steps="Straight-line depreciation is cost minus residual value, divided by useful life. "
        f"{equation(f'({c} - {r}) / {number(life)}', charge)}.",
        conclusion="The depreciation a year is $",
        answer=amount(charge),
    )


def book_value(draw: Draw) -> Worked:
    """Book value after k years = cost - k x (cost - residual value) / useful life."""
    cost, residual, life = _asset(draw)
    years = draw.number("years", 1, int(life) - 1)
    value = cost - years * (cost - residual) / life
    c, r, span = number(cost), number(residual), years_text(life)
    k = number(years)
    return Worked(
        prompts=(
            f"A van costs ${c}, with a residual value of ${r} after {span}. What is its book "
            f"value after {years_text(years)} of straight-line depreciation?",
            f"Equipment bought for ${c} is depreciated straight-line over {span} to ${r}. What "
            f"is the book value after {years_text(years)}?",
            f"What is the carrying amount after {years_text(years)} of an asset with cost ${c}, "
            f"residual value ${r} and a life of {span}, depreciated straight-line?",
        ),
        steps="Book value is cost minus the depreciation so far. "
        f"{equation(f'{c} - {k} x ({c} - {r}) / {number(life)}', value)}.",
        conclusion="The book value is $",
        answer=amount(value),
    )


def declining_balance(draw: Draw) -> Worked:
    """Charge in year k = cost x (1 - rate)^(k - 1) x rate."""
    cost = draw.number("cost", 1000, 40_000, 500)
    rate = draw.number("rate", 10, 50, 5)
    year = draw.number("year", 1, 4)
    charge = cost * (1 - rate / 100) ** (year - 1) * rate / 100
    c, r, y = number(cost), number(rate), number(year)
    kept, power = number(1 - rate / 100), number(year - 1)
    expression = f"{c} x {kept}^{power} x {number(rate / 100)}"
    return Worked(
        prompts=(
            f"An asset costs ${c} and is depreciated at {r}% of the declining balance. What is "
            f"the depreciation in year {y}?",
            f"Using the declining-balance method at {r}% a year, what is the depreciation in "
            f"year {y} of a machine that cost ${c}?",
            f"Calculate the charge for year {y}: cost ${c}, declining balance, {r}% a year.",
        ),
        steps=f"Each year's charge is {r}% of the book value at its start. "
        f"{equation(expression, charge)}.",
        conclusion=f"The depreciation in year {y} is $",
        answer=amount(charge),
    )


def _asset(draw: Draw) -> tuple[Decimal, Decimal, Decimal]:
    residual = draw.number("residual", 100, 2000, 100)
    cost = residual + draw.number("depreciable", 1000, 20_000, 200)
    return cost, residual, draw.number("life", 2, 10)


KINDS = {
    "straight-line-depreciation": straight_line,
    "book-value": book_value,
    "declining-balance-depreciation": declining_balance,
}
