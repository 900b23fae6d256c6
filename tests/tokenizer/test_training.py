"""Learning a vocabulary: what it learns from, and that no text makes it take for ever."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.tokenizer import Tokenizer
from tallyformer.tokenizer.training import LONGEST_WORD, in_short_words

from .conftest import TEXTS

parts = st.tuples(
    st.sampled_from(["a", "é", "日", "9", " ", "\n", "a b ", "!"]), st.integers(0, 700)
)


@given(st.lists(parts, max_size=8))
def test_no_piece_has_a_longer_word_and_nothing_is_lost(runs: list[tuple[str, int]]) -> None:
    text = "".join(part * count for part, count in runs)
    pieces = in_short_words(text)
    assert "".join(pieces) == text
    longest = max(len(run) for piece in pieces for run in re.findall(r"\S+|\s+|^$", piece))
    assert longest <= LONGEST_WORD
    if max(map(len, re.findall(r"\S+|\s+|^$", text))) <= LONGEST_WORD:
        assert pieces == [text]


LONG_WORDS = {
    "letters": "".join(random.Random(0).choices("abcdefghij", k=10**6)),
    "one letter": "a" * 10**6,
    "spaces": " " * 10**6 + "x",
    "signs": "=" * 10**6,
    "no spaces": "日本語。" * 250_000,
}


def test_a_word_of_a_million_letters_is_learnt_from_at_once() -> None:
    """Whole, each of these takes minutes; the timeout is what a hang is known by."""
    script = (
        "import sys; from tallyformer.tokenizer import Tokenizer\n"
        "texts = sys.stdin.read().split('\\0')\n"
        "print(Tokenizer.train(texts, 300).vocab_size)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="\0".join([*TEXTS, *LONG_WORDS.values()]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "300\n", done.stderr


@pytest.mark.parametrize("kind", LONG_WORDS)
def test_a_long_word_has_the_ids_that_the_slow_path_gives_it(
    tokenizer: Tokenizer, kind: str
) -> None:
    text = LONG_WORDS[kind][:50_000]
    ids = tokenizer.encode(text)
    assert tokenizer.encode_to_numpy(text).tolist() == ids
    assert tokenizer.decode(ids) == text
