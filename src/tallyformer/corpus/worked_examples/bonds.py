"""Bonds: coupon, current yield, price from the yield."""

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


def bond_coupon(draw: Draw) -> Worked:
    """Coupon = face value x coupon rate / payments a year."""
    face = draw.number("face", 1000, 20_000, 1000)
    rate = draw.number("rate", 1, 12, "0.25")
    often = draw.word("often", ("once", "twice"))
    payments = {"once": 1, "twice": 2}[often]
    coupon = face * rate / 100 / payments
    f, r = number(face), number(rate)
    expression = f"{f} x {number(rate / 100)}" + (" / 2" if payments == 2 else "")
    times = "once a year" if payments == 1 else "twice a year"
    return Worked(
        prompts=(
            f"A bond with a face value of ${f} has a coupon rate of {r}% a year, paid {times}. "
            "How much is each coupon?",
            f"What is each coupon of a ${f} bond with a yearly coupon rate of {r}% paid {times}?",
            f"I own ${f} face value of a {r}% bond that pays {times}. How much do I get at each "
            "payment?",
        ),
        steps="A coupon is face value times coupon rate, divided by the payments a year. "
        f"{equation(expression, coupon)}.",
        conclusion="Each coupon is $",
        answer=amount(coupon),
    )


def current_yield(draw: Draw) -> Worked:
    """Current yield = yearly coupon / price."""
    coupon = draw.number("coupon", 10, 100, 5)
    price = draw.number("price", 800, 1200, 5)
    c, p = number(coupon), number(price)
    return Worked(
        prompts=(
            f"A bond pays ${c} a year and costs ${p}. What is its current yield?",
            f"What is the current yield of a bond priced at ${p} with a yearly coupon of ${c}?",
            f"Calculate the current yield: price ${p}, yearly coupon ${c}.",
        ),
        steps="Current yield is the yearly coupon divided by the price. "
        f"{equation(f'{c} / {p}', coupon / price, as_percent=True)}.",
        conclusion="The current yield is ",
        answer=percent(coupon / price),
    )


def bond_price(draw: Draw) -> Worked:
    """Price = coupon x (1 - (1 + y)^-n) / y + face x (1 + y)^-n, yearly coupons."""
    face = draw.number("face", 1000, 10_000, 1000)
    coupon = face * draw.number("rate", 1, 10) / 100
    market = draw.number("yield", 1, 12)
    years = draw.number("years", 2, 10)
    growth = 1 + market / 100
    value = coupon * (1 - growth**-years) / (market / 100) + face * growth**-years
    f, c, y, span = number(face), number(coupon), number(market), years_text(years)
    g = f"{number(growth)}^-{years}"
    expression = f"{c} x (1 - {g}) / {number(market / 100)} + {f} x {g}"
    return Worked(
        prompts=(
            f"What is the price of a ${f} bond that pays ${c} at the end of each year for {span} "
            f"if the market yield is {y}%?",
            f"A bond repays ${f} in {span} and pays a coupon of ${c} a year. The yield to "
            f"maturity is {y}%. What is its price?",
            f"Price a bond: face value ${f}, yearly coupon ${c}, {span} to maturity, yield {y}%.",
        ),
        steps="The price is the present value of the coupons plus that of the face value. "
        f"{equation(expression, value)}.",
        conclusion="The price of the bond is $",
        answer=amount(value),
    )


KINDS = {
    "bond-coupon": bond_coupon,
    "current-yield": current_yield,
    "bond-price": bond_price,
}
