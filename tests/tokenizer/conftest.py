"""A small trained tokenizer, and a folder in GPT-2's own format made from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import settings

from tallyformer.tokenizer import Tokenizer

# Time limits of single examples say nothing on a machine that others use too.
settings.register_profile("tallyformer", deadline=None)
settings.load_profile("tallyformer")

TEXTS = [
    "The balance sheet lists what a company owns and what it owes at one moment.",
    "It's the lender's risk that we're pricing: 12,345.67 dollars at 4.5% for 30 years.",
    "def interest(principal, rate):\n    return principal * rate  # simple\n\n\n",
    "Überweisung, crédit, финансы, 金融, お金, 💶💷 and naïve café – “quoted”.",
    "A bond pays a coupon every year and returns its face value when it matures; the yield moves.",
    "Depreciation spreads the cost of a machine over the years in which it is used, less salvage.",
    "   spaces    and\ttabs \r\n line ends \n\n and so on and so on and so on",
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, vocab_size=480)


@pytest.fixture(scope="session")
def saved(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tokenizer.save(folder, model_max_length=64)
    return folder


@pytest.fixture(scope="session")
def gpt2_folder(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vocab.json and merges.txt as GPT-2 has them: only <|endoftext|> after the merges."""
    folder = tmp_path_factory.mktemp("gpt2")
    model = json.loads((saved / "tokenizer.json").read_text())["model"]
    vocab = {**model["vocab"], "<|endoftext|>": len(model["vocab"])}
    merges = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    return folder
