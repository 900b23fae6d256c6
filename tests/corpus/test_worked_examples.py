"""Laws of the worked examples. The answers are recomputed here with fractions, from the numbers
a question was drawn from and, once more, from the equation that the response shows."""

from __future__ import annotations

import ast
import itertools
import operator
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.corpus.worked_examples import (
    Example,
    contains_answer,
    held_out_examples,
    worked_examples,
)
from tallyformer.corpus.worked_examples.generator import KINDS

SAMPLE = [*worked_examples(2000, seed=3), *held_out_examples(1000, seed=3)]
Values = dict[str, Fraction]

PERCENT: dict[str, Callable[..., Fraction]] = {
    "effective-annual-rate": lambda nominal, compounding: (
        (1 + nominal / 100 / _periods(compounding)) ** _periods(compounding) - 1
    ),
    "gross-margin": lambda revenue, cost_share: 1 - cost_share / 100,
    "net-margin": lambda revenue, profit: profit / revenue,
    "return-on-equity": lambda equity, profit: profit / equity,
    "return-on-assets": lambda assets, profit: profit / assets,
    "simple-return": lambda start, gain: (start + gain) / start - 1,
    "holding-period-return": lambda start, rise, income: (start + rise + income) / start - 1,
    "real-return": lambda inflation, excess: excess / (100 + inflation),
    "dividend-yield": lambda price, dividend: dividend / price,
    "current-yield": lambda coupon, price: coupon / price,
}
AMOUNT: dict[str, Callable[..., Fraction]] = {
    "simple-interest": lambda principal, rate, years: principal * rate * years / 100,
    "compound-interest": lambda principal, rate, years: _grown(principal, rate, years) - principal,
    "future-value": lambda present, rate, years: _grown(present, rate, years),
    "present-value": lambda future, rate, years: _discounted(future, rate, years),
    "yearly-saving": lambda payment, rate, years: sum(
        _grown(payment, rate, Fraction(k)) for k in range(int(years))
    ),
    "loan-payment": lambda principal, rate, months: (
        principal / sum(_discounted(Fraction(1), rate / 12, k + 1) for k in range(int(months)))
    ),
    "loan-total-interest": lambda principal, months, extra_a_month: (
        (principal // months + extra_a_month) * months - principal
    ),
    "loan-month-interest": lambda balance, rate: balance * rate / 1200,
    "current-ratio": lambda assets, liabilities: assets / liabilities,
    "quick-ratio": lambda inventory, other, liabilities: other / liabilities,
    "debt-to-equity": lambda debt, equity: debt / equity,
    "earnings-per-share": lambda profit, shares: profit / shares,
    "price-earnings": lambda price, earnings: price / earnings,
    "bond-coupon": lambda face, rate, often: face * rate / 100 / (1 if often == "once" else 2),
    "bond-price": lambda **v: (
        _discounted(v["face"], v["yield"], v["years"])
        + sum(
            _discounted(v["face"] * v["rate"] / 100, v["yield"], k + 1)
            for k in range(int(v["years"]))
        )
    ),
    "currency-to-dollars": lambda currency, foreign, rate: foreign * rate,
    "currency-from-dollars": lambda currency, dollars, rate: dollars / rate,
    "straight-line-depreciation": lambda residual, depreciable, life: depreciable / life,
    "book-value": lambda residual, depreciable, life, years: (
        residual + depreciable * (life - years) / life
    ),
    "declining-balance-depreciation": lambda cost, rate, year: (
        _grown(cost, -rate, year - 1) - _grown(cost, -rate, year)
    ),
    "income-tax": lambda limit, above, low, step: (limit * low + above * (low + step)) / 100,
    "sales-tax": lambda price, rate: price + price * rate / 100,
    "discount": lambda price, rate: price - price * rate / 100,
}


def _periods(compounding: str) -> int:
    return {"half-yearly": 2, "quarterly": 4, "monthly": 12}[compounding]


def _grown(value: Fraction, rate: Fraction, years: Fraction) -> Fraction:
    for _ in range(int(years)):
        value += value * rate / 100
    return value


def _discounted(value: Fraction, rate: Fraction, years: Fraction | int) -> Fraction:
    return value / _grown(Fraction(1), rate, Fraction(years))


def _half_up(value: Fraction) -> Decimal:
    """Two decimals, a half upwards; the values here are never negative."""
    assert value >= 0
    return Decimal(int(value * 100 + Fraction(1, 2))) / 100


def _values(example: Example) -> dict[str, Fraction | str]:
    return {k: Fraction(v) if isinstance(v, Decimal) else v for k, v in example.values.items()}


def _expected(example: Example) -> str:
    values = _values(example)
    if example.kind in PERCENT:
        return f"{_half_up(PERCENT[example.kind](**values) * 100):,.2f}%"
    if example.kind in AMOUNT:
        return f"{_half_up(AMOUNT[example.kind](**values)):,.2f}"
    if example.kind == "break-even":
        return f"{values['units']}"
    assert example.kind == "percentage-change"
    change = values["new"] / values["old"] - 1
    word = "an increase of" if change > 0 else "a decrease of"
    return f"{word} {_half_up(abs(change) * 100):,.2f}%"


def _is_journal(example: Example) -> bool:
    return example.kind.startswith("journal-entry")


def test_every_kind_is_sampled_about_equally_often() -> None:
    for sample in (SAMPLE[:2000], SAMPLE[2000:]):
        counts = {kind: sum(e.kind == kind for e in sample) for kind in KINDS}
        assert max(counts.values()) - min(counts.values()) <= 1
    assert set(PERCENT) | set(AMOUNT) | {"break-even", "percentage-change"} == {
        kind for kind in KINDS if not kind.startswith("journal-entry")
    }


def test_every_answer_equals_an_independent_computation() -> None:
    for example in SAMPLE:
        if not _is_journal(example):
            assert example.answer == _expected(example), example


def test_the_equation_in_a_response_holds_and_is_marked_where_it_is_rounded() -> None:
    checked = 0
    for example in SAMPLE:
        for expression, shown, mark in _equations(example.response):
            exact = _evaluate(expression)
            percent = shown.endswith("%") and "%" not in expression
            exact = exact * 100 if percent else exact
            assert Decimal(shown.rstrip("%").replace(",", "")) == _half_up(exact), example
            assert bool(mark) == (Fraction(_half_up(exact)) != exact), example
            checked += 1
    with_equation = [e for e in SAMPLE if e.kind != "journal-entry"]
    assert checked >= len(with_equation)


def _equations(response: str) -> list[tuple[str, str, str]]:
    """(expression, shown value, rounding mark) of every sentence that is an equation."""
    sentences = response.split(". ")
    pattern = r"(?:[A-Za-z ]+ )?([\d(][\d.,%x()/+^ -]*) = ([\d,]+(?:\.\d+)?%?)( \(rounded\))?\.?"
    return [match.groups() for s in sentences if (match := re.fullmatch(pattern, s))]


def _evaluate(expression: str) -> Fraction:
    """The value of an expression of the responses, in exact fractions."""
    python = re.sub("[,%]", "", expression).replace("x", "*").replace("^", "**")
    return _node(ast.parse(python.strip(), mode="eval").body, python)


def _node(node: ast.expr, source: str) -> Fraction:
    operators = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.Pow: lambda a, b: a ** int(b),
    }
    if isinstance(node, ast.BinOp):
        return operators[type(node.op)](_node(node.left, source), _node(node.right, source))
    if isinstance(node, ast.UnaryOp):
        return -_node(node.operand, source)
    assert isinstance(node, ast.Constant), ast.dump(node)
    return Fraction(Decimal(ast.get_source_segment(source.strip(), node) or ""))


def test_debits_equal_credits_in_every_journal_entry() -> None:
    entries = [e for e in SAMPLE if _is_journal(e)]
    assert entries
    for example in entries:
        sides = {"debit": Decimal(0), "credit": Decimal(0)}
        for side, _, value in _postings(example.response):
            sides[side] += value
        assert sides["debit"] == sides["credit"] > 0, example


def test_a_journal_entry_posts_the_amounts_of_its_transaction() -> None:
    for example in SAMPLE:
        v = example.values
        if example.kind == "journal-entry":
            assert {p[2] for p in _postings(example.answer)} == {v["amount"]}
        if example.kind == "journal-entry-split":
            assert _postings(example.answer) == [
                ("debit", v["asset"], v["cash"] + v["owed"]),
                ("credit", "Cash", v["cash"]),
                ("credit", "Accounts payable", v["owed"]),
            ]


def _postings(text: str) -> list[tuple[str, str, Decimal]]:
    found = re.findall(r"(debit|credit) ([A-Z][A-Za-z' ]+) \$([\d,]+\.\d\d)", text)
    return [(side, account, Decimal(value.replace(",", ""))) for side, account, value in found]


def test_a_response_ends_with_its_answer_and_fits_a_small_context() -> None:
    for example in SAMPLE:
        assert example.response.endswith(f"{example.answer}.")
        assert contains_answer(example.response, example.answer)
        assert len(example.prompt) + len(example.response) < 500


def test_a_prompt_states_numbers_but_never_its_answer() -> None:
    for example in SAMPLE:
        assert re.search(r"\d", example.prompt)
        assert not contains_answer(example.prompt, example.answer), example


def test_the_numbers_in_an_equation_stand_in_the_question_or_follow_from_a_rate() -> None:
    """A question must state all that its answer was computed from: amounts of the equation that
    are 10 or more cannot come from a percentage or a count of periods."""
    for example in SAMPLE:
        stated = {m.replace(",", "") for m in re.findall(r"\d[\d,]*(?:\.\d+)?", example.prompt)}
        for expression, _, _ in _equations(example.response):
            used = re.findall(r"\d[\d,]*(?:\.\d+)?", expression)
            amounts = {n.replace(",", "") for n in used if Decimal(n.replace(",", "")) > 12}
            assert amounts <= stated, example


def test_the_same_seed_gives_the_same_text_and_a_longer_stream_continues_it() -> None:
    assert list(worked_examples(300, 11)) == list(worked_examples(300, 11))
    assert list(worked_examples(100, 11)) == list(itertools.islice(worked_examples(300, 11), 100))
    assert list(held_out_examples(100, 11)) == list(held_out_examples(300, 11))[:100]


def test_another_seed_gives_another_text() -> None:
    first, second = ({e.prompt for e in worked_examples(300, s)} for s in (1, 2))
    assert len(first & second) < 30


def test_the_text_does_not_depend_on_the_callers_decimal_precision() -> None:
    from decimal import localcontext

    expected = list(worked_examples(200, 5))
    with localcontext(prec=4):
        assert list(worked_examples(200, 5)) == expected


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_no_seed_makes_a_training_example_from_held_out_numbers(train: int, held: int) -> None:
    def problems(examples: object) -> set[tuple[object, ...]]:
        return {(e.kind, *sorted(e.values.items())) for e in examples}  # type: ignore[attr-defined]

    assert not problems(worked_examples(300, train)) & problems(held_out_examples(150, held))


def test_equal_numbers_in_a_question_mean_an_equal_problem() -> None:
    """Otherwise held-out numbers could come back under other names of the same draw."""
    problems: dict[tuple[str, str], object] = {}
    for example in (*worked_examples(8000, 7), *held_out_examples(4000, 7)):
        values = tuple(sorted(example.values.items()))
        assert problems.setdefault((example.kind, example.prompt), values) == values


def test_prompts_do_not_repeat_in_a_sample() -> None:
    sample = list(worked_examples(20_000, 1))
    assert len({e.prompt for e in sample}) == len(sample)
    assert len({e.id for e in sample}) == len(sample)


@pytest.mark.parametrize(
    "text",
    ["It costs $12.50.", "12.50", "so 12.50, rounded", "=12.50 (rounded)", "USD 12.50\n"],
)
def test_an_answer_is_found_as_a_whole_number(text: str) -> None:
    assert contains_answer(text, "12.50")


@pytest.mark.parametrize(
    "text",
    ["112.50", "12.505", "1,012.50", "-12.50", "-$12.50", "12.50%", "12.5", "2.12.50", "12.50.1"],
)
def test_a_longer_or_other_number_is_no_answer(text: str) -> None:
    assert not contains_answer(text, "12.50")


def test_commas_case_and_white_space_make_no_difference_to_an_answer() -> None:
    assert contains_answer("Debit  cash $1250.00, credit sales $1,250.00", "debit Cash $1,250.00")
    assert contains_answer("It is an increase of 1114.29%.", "an increase of 1,114.29%")
    assert not contains_answer("It is 11,250.00.", "1,250.00")
