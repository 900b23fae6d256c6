from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.data.cleaning import Cleaning, clean_rows
from tallyformer.data.hashing import content_hash, in_validation, prompt_in_validation
from tallyformer.data.normalize import MOST_MARKS, normalize
from tallyformer.data.rows import Row
from tallyformer.errors import InvalidTextError

CLEANING = Cleaning("NFC", 3, 10, drop_invalid=False, validation_fraction=0.2, seed=1)
messy = st.text(st.sampled_from("ab e\u0301é\r\n\0\ufeff\u00a0ﬁ①Å\t"), max_size=12)


@given(messy, st.sampled_from(["NFC", "NFKC", "none"]))
def test_normalising_twice_changes_nothing(text: str, form: str) -> None:
    once = normalize(text, form)  # type: ignore[arg-type]
    assert normalize(once, form) == once  # type: ignore[arg-type]
    assert not set(once) & set("\r\0\ufeff")
    if form != "none":
        assert unicodedata.is_normalized(form, once)


def test_line_ends_forms_and_marks_are_made_equal() -> None:
    assert normalize("\ufeff a\r\nb\rc\0 \n", "NFC") == "a\nb\nc"
    assert normalize("e\u0301 ﬁ", "NFC") == "é ﬁ"
    assert normalize("e\u0301 ﬁ", "NFKC") == "é fi"
    assert normalize("e\u0301", "none") == "e\u0301"


def rows(*payloads: bytes | None) -> list[Row]:
    values = [p if p is None else {"text": p} for p in payloads]
    return [Row(0, number, value, 1) for number, value in enumerate(values, start=1)]


def test_every_row_is_kept_or_dropped_with_a_reason() -> None:
    dropped: Counter[str] = Counter()
    payloads = rows(b"just right"[:10], b" ab ", b" \n", b"x" * 11, None, b"abc")
    kept = clean_rows(payloads, ["f"], "text", CLEANING, dropped)
    assert [(row.number, text) for row, text in kept] == [(1, "just right"), (6, "abc")]
    assert dropped == {"too_short": 1, "empty": 1, "too_long": 2}


def test_invalid_utf8_stops_or_is_dropped_as_the_recipe_says() -> None:
    payloads = rows(b"good text", b"bad \xff")
    with pytest.raises(
        InvalidTextError, match=r"f:2: not valid UTF-8 at byte 4.*on_invalid_utf8: drop"
    ):
        list(clean_rows(payloads, ["f"], "text", CLEANING, Counter()))
    dropped: Counter[str] = Counter()
    lenient = replace(CLEANING, drop_invalid=True)
    assert len(list(clean_rows(payloads, ["f"], "text", lenient, dropped))) == 1
    assert dropped == {"invalid_utf8": 1}


def test_the_split_has_the_wanted_share_and_depends_on_the_seed() -> None:
    digests = [content_hash(f"document {n}") for n in range(20_000)]
    first, second = (
        [in_validation(d, fraction=0.1, seed=seed) for d in digests] for seed in (1, 2)
    )
    # 20,000 draws of 0.1: standard deviation 0.0021, so 0.01 is 4.7 of them.
    assert abs(sum(first) / len(first) - 0.1) < 0.01
    both = sum(a and b for a, b in zip(first, second, strict=True))
    assert abs(both / len(first) - 0.01) < 0.004


@given(st.text(max_size=12), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_held_out_prompt_stays_held_out_at_a_larger_fraction(
    prompt: str, one: float, other: float
) -> None:
    small, large = (
        prompt_in_validation(prompt, fraction=fraction, seed=3) for fraction in sorted((one, other))
    )
    assert small <= large


def test_case_and_white_space_of_a_prompt_do_not_change_its_split() -> None:
    plain = [prompt_in_validation(f"what is {n}?", fraction=0.3, seed=3) for n in range(50)]
    other = [prompt_in_validation(f" What  IS\n{n}? ", fraction=0.3, seed=3) for n in range(50)]
    assert plain == other and 0 < sum(plain) < 50


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_a_long_run_of_combining_marks_is_ordered_a_piece_at_a_time(form: Any) -> None:
    """Whole, a run of a million takes most of an hour."""
    marks = "\u0301\u0316" * 500_000
    found = normalize(f"{'x' * 5000}e{marks} tail é", form)
    assert found.startswith("x" * 5000 + unicodedata.normalize(form, "e" + marks[:MOST_MARKS]))
    letters = Counter(itertools.chain.from_iterable(unicodedata.normalize("NFD", c) for c in found))
    assert letters["\u0301"] == 500_001 and letters["\u0316"] == 500_000
    assert found.endswith(" tail é")


@given(st.lists(st.sampled_from(["e", "\u0301", "\u0316", "日", " ", "क\u094d"]), max_size=40))
def test_shorter_runs_are_brought_into_the_form_of_the_whole(parts: list[str]) -> None:
    text = "x" * 5000 + "".join(parts) + "x"
    assert normalize(text, "NFC") == unicodedata.normalize("NFC", text)
