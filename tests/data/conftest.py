"""A small tokenizer."""

from __future__ import annotations

import pytest

from tallyformer.tokenizer import Tokenizer

TEXTS = [
    "The balance sheet lists what a company owns and what it owes at one moment in time.",
    "A bond pays a coupon every year and returns its face value when it matures, if all is well.",
    "Depreciation spreads the cost of a machine over the years in which it is used, less salvage.",
    "What is a share? A share is a unit of ownership in a company, with a vote and a dividend.",
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS * 2, vocab_size=400)
