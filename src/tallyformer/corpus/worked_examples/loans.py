"""Loans: the level payment, the interest over the term, the interest in the next payment."""

from __future__ import annotations

from tallyformer.corpus.worked_examples.example import Worked
from tallyformer.corpus.worked_examples.numbers import Draw, amount, equation, number


def loan_payment(draw: Draw) -> Worked:
    """Payment = principal x rate / (1 - (1 + rate)^-months), with the monthly rate."""
    principal = draw.number("principal", 1000, 50_000, 500)
    rate = draw.number("rate", "2.4", "12", "0.6")  # a twelfth of it has few decimals
    months = draw.number("months", 6, 60, 6)
    monthly = rate / 1200
    payment = principal * monthly / (1 - (1 + monthly) ** -months)
    p, r, m = number(principal), number(rate), number(months)
    expression = f"{p} x {number(monthly)} / (1 - {number(1 + monthly)}^-{m})"
    return Worked(
        prompts=(
            f"What is the monthly payment on a loan of ${p} at {r}% a year over {m} months?",
            f"I borrow ${p} at {r}% a year and repay it in {m} equal monthly payments. "
            "How much is each payment?",
            f"A ${p} loan at {r}% a year runs for {m} months. What is the level monthly payment?",
        ),
        steps=f"The monthly rate is {r}% / 12 = {number(monthly * 100)}%. The payment is loan x "
        f"rate / (1 - (1 + rate)^-months). {equation(expression, payment)}.",
        conclusion="The monthly payment is $",
        answer=amount(payment),
    )


def loan_total_interest(draw: Draw) -> Worked:
    """Total interest = payment x months - principal."""
    principal = draw.number("principal", 1000, 30_000, 500)
    months = draw.number("months", 12, 60, 6)
    # The payment is a whole number somewhat above the principal's share.
    markup = draw.number("extra_a_month", 5, 60)
    payment = principal // months + markup
    interest = payment * months - principal
    p, m, each = number(principal), number(months), number(payment)
    return Worked(
        prompts=(
            f"A loan of ${p} is repaid in {m} monthly payments of ${each}. "
            "How much interest is paid in total?",
            f"I borrowed ${p} and pay ${each} a month for {m} months. What is the total interest?",
            f"What is the total interest on a ${p} loan with {m} payments of ${each}?",
        ),
        steps="Total interest is all payments minus the amount borrowed. "
        f"{equation(f'{m} x {each} - {p}', interest)}.",
        conclusion="The total interest is $",
        answer=amount(interest),
    )


def next_payment_interest(draw: Draw) -> Worked:
    """Interest of one month = balance x yearly rate / 12."""
    balance = draw.number("balance", 1200, 36_000, 300)
    rate = draw.number("rate", 2, 12, "0.5")
    interest = balance * rate / 100 / 12
    b, r = number(balance), number(rate)
    return Worked(
        prompts=(
            f"The balance of a loan is ${b} and its rate is {r}% a year. How much interest is in "
            "the next monthly payment?",
            f"How much interest does a loan balance of ${b} cost for one month at {r}% a year?",
            f"I owe ${b} at {r}% a year, charged monthly. What is this month's interest?",
        ),
        steps="One month's interest is balance times yearly rate divided by 12. "
        f"{equation(f'{b} x {number(rate / 100)} / 12', interest)}.",
        conclusion="The interest for the month is $",
        answer=amount(interest),
    )


KINDS = {
    "loan-payment": loan_payment,
    "loan-total-interest": loan_total_interest,
    "loan-month-interest": next_payment_interest,
}
