"""Ratios from the income statement and the balance sheet. Amounts are whole dollars."""

from __future__ import annotations

from decimal import Decimal

from tallyformer.corpus.worked_examples.example import Worked
from tallyformer.corpus.worked_examples.numbers import (
    Draw,
    amount,
    equation,
    number,
    percent,
)


def gross_margin(draw: Draw) -> Worked:
    """Gross margin = (revenue - cost of goods sold) / revenue."""
    revenue = draw.number("revenue", 1000, 20_000, 500)
    cost = revenue * draw.number("cost_share", 20, 90) / 100
    r, c = number(revenue), number(cost)
    return _share(
        "gross margin",
        "Gross margin is revenue minus cost of goods sold, divided by revenue.",
        f"({r} - {c}) / {r}",
        (revenue - cost) / revenue,
        (
            f"Revenue is ${r} and the cost of goods sold is ${c}. What is the gross margin?",
            f"What is the gross margin of a shop with sales of ${r} and cost of goods sold of "
            f"${c}, in percent?",
            f"A company sells goods for ${r} that cost it ${c}. Calculate its gross margin.",
        ),
    )


def net_margin(draw: Draw) -> Worked:
    """Net margin = net profit / revenue."""
    revenue = draw.number("revenue", 2000, 50_000, 1000)
    profit = draw.number("profit", 50, 1950, 50)
    r, p = number(revenue), number(profit)
    return _share(
        "net margin",
        "Net margin is net profit divided by revenue.",
        f"{p} / {r}",
        profit / revenue,
        (
            f"A company has revenue of ${r} and a net profit of ${p}. What is its net margin?",
            f"What is the net margin when net profit is ${p} on revenue of ${r}?",
            f"Net profit: ${p}. Revenue: ${r}. Calculate the net margin in percent.",
        ),
    )


def return_on_equity(draw: Draw) -> Worked:
    """ROE = net profit / equity."""
    equity = draw.number("equity", 2000, 50_000, 1000)
    profit = draw.number("profit", 100, 1900, 50)
    e, p = number(equity), number(profit)
    return _share(
        "return on equity",
        "Return on equity is net profit divided by equity.",
        f"{p} / {e}",
        profit / equity,
        (
            f"Net profit is ${p} and equity is ${e}. What is the return on equity?",
            f"What is the ROE of a company that earns ${p} on equity of ${e}?",
            f"Calculate the return on equity for equity of ${e} and net profit of ${p}.",
        ),
    )


def return_on_assets(draw: Draw) -> Worked:
    """ROA = net profit / total assets."""
    assets = draw.number("assets", 5000, 80_000, 1000)
    profit = draw.number("profit", 100, 4900, 100)
    a, p = number(assets), number(profit)
    return _share(
        "return on assets",
        "Return on assets is net profit divided by total assets.",
        f"{p} / {a}",
        profit / assets,
        (
            f"Net profit is ${p} and total assets are ${a}. What is the return on assets?",
            f"What is the ROA of a firm with assets of ${a} and a net profit of ${p}?",
            f"A business earns ${p} with ${a} of assets. Calculate its return on assets.",
        ),
    )


def current_ratio(draw: Draw) -> Worked:
    """Current ratio = current assets / current liabilities."""
    assets = draw.number("assets", 1000, 30_000, 500)
    liabilities = draw.number("liabilities", 1000, 20_000, 500)
    a, d = number(assets), number(liabilities)
    return _ratio(
        "current ratio",
        "The current ratio is current assets divided by current liabilities.",
        f"{a} / {d}",
        assets / liabilities,
        (
            f"Current assets are ${a} and current liabilities are ${d}. What is the current ratio?",
            f"What is the current ratio of a firm with ${a} in current assets and ${d} in "
            "current liabilities?",
            f"Calculate the current ratio: current liabilities ${d}, current assets ${a}.",
        ),
    )


def quick_ratio(draw: Draw) -> Worked:
    """Quick ratio = (current assets - inventory) / current liabilities."""
    inventory = draw.number("inventory", 200, 5000, 200)
    other = draw.number("other", 1000, 20_000, 500)
    liabilities = draw.number("liabilities", 1000, 10_000, 1000)
    a, i, d = number(inventory + other), number(inventory), number(liabilities)
    return _ratio(
        "quick ratio",
        "The quick ratio leaves inventory out of current assets.",
        f"({a} - {i}) / {d}",
        other / liabilities,
        (
            f"Current assets are ${a}, of which inventory is ${i}. Current liabilities are ${d}. "
            "What is the quick ratio?",
            f"What is the quick ratio with current assets of ${a}, inventory of ${i} and current "
            f"liabilities of ${d}?",
            f"Calculate the quick ratio: inventory ${i}, current liabilities ${d}, current "
            f"assets ${a}.",
        ),
    )


def debt_to_equity(draw: Draw) -> Worked:
    """Debt-to-equity = total debt / equity."""
    debt = draw.number("debt", 1000, 40_000, 500)
    equity = draw.number("equity", 1000, 20_000, 500)
    d, e = number(debt), number(equity)
    return _ratio(
        "debt-to-equity ratio",
        "The debt-to-equity ratio is total debt divided by equity.",
        f"{d} / {e}",
        debt / equity,
        (
            f"A company has debt of ${d} and equity of ${e}. What is its debt-to-equity ratio?",
            f"What is the debt-to-equity ratio for equity of ${e} and total debt of ${d}?",
            f"Total debt: ${d}. Equity: ${e}. Calculate debt to equity.",
        ),
    )


def earnings_per_share(draw: Draw) -> Worked:
    """EPS = net profit / shares outstanding."""
    profit = draw.number("profit", 1000, 90_000, 500)
    shares = draw.number("shares", 500, 20_000, 500)
    p, s = number(profit), number(shares)
    value = profit / shares
    return Worked(
        prompts=(
            f"Net profit is ${p} and there are {s} shares. What are the earnings per share?",
            f"What is the EPS of a company with {s} shares and a net profit of ${p}?",
            f"A company with {s} shares outstanding earns ${p}. Calculate earnings per share.",
        ),
        steps="Earnings per share is net profit divided by the number of shares. "
        f"{equation(f'{p} / {s}', value)}.",
        conclusion="Earnings per share are $",
        answer=amount(value),
    )


def price_earnings(draw: Draw) -> Worked:
    """P/E = share price / earnings per share."""
    price = draw.number("price", 5, 200)
    earnings = draw.number("earnings", "0.5", "12", "0.25")
    p, e = number(price), amount(earnings)
    return _ratio(
        "price-earnings ratio",
        "The price-earnings ratio is the share price divided by earnings per share.",
        f"{p} / {e}",
        price / earnings,
        (
            f"A share costs ${p} and earnings per share are ${e}. What is the price-earnings "
            "ratio?",
            f"What is the P/E ratio of a share at ${p} with an EPS of ${e}?",
            f"Calculate the price-earnings ratio for earnings of ${e} a share and a price of ${p}.",
        ),
    )


def _share(
    name: str, rule: str, expression: str, value: Decimal, prompts: tuple[str, ...]
) -> Worked:
    steps = f"{rule} {equation(expression, value, as_percent=True)}."
    return Worked(prompts, steps, f"The {name} is ", percent(value))


def _ratio(
    name: str, rule: str, expression: str, value: Decimal, prompts: tuple[str, ...]
) -> Worked:
    steps = f"{rule} {equation(expression, value)}."
    return Worked(prompts, steps, f"The {name} is ", amount(value))


KINDS = {
    "gross-margin": gross_margin,
    "net-margin": net_margin,
    "return-on-equity": return_on_equity,
    "return-on-assets": return_on_assets,
    "current-ratio": current_ratio,
    "quick-ratio": quick_ratio,
    "debt-to-equity": debt_to_equity,
    "earnings-per-share": earnings_per_share,
    "price-earnings": price_earnings,
}
