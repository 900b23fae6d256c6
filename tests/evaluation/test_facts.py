"""When an answer holds a key fact: signs, numbers and ends of words."""

from __future__ import annotations

import pytest

from tallyformer.evaluation.facts import contains_key_fact


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("assets=liabilities+equity", "liabilities + equity"),
        ("Assets =liabilities+ equity.", "assets = liabilities + equity"),
        ("a fee of 5 % a year", "5% a year"),
        ("it is 5%", "5 %"),
        ("up to $ 250,000", "$250,000"),
        ("a ratio < 1, never > 2", "ratio <1"),
        ("price × quantity", "price x quantity"),
        ("Price * Quantity", "price x quantity"),
        ("3x4", "3 × 4"),
        ("losses", "loss"),
    ],
)
def test_a_key_fact_is_found_however_its_signs_are_spaced(answer: str, key: str) -> None:
    assert contains_key_fact(answer, [key])


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("15%", "5%"),
        ("15 %", "5 %"),
        ("1.5%", "5%"),
        ("5%", "5"),
        ("$2,500", "$250"),
        ("a riskless asset", "risk"),
        ("bondholders", "bond"),
        ("taxation", "tax"),
        ("assets = liabilities - equity", "liabilities + equity"),
    ],
)
def test_a_key_fact_is_never_a_part_of_a_word_or_number(answer: str, key: str) -> None:
    assert not contains_key_fact(answer, [key])
