"""A source with too few documents to hold one out is split by passage."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.config.data import TextSource
from tallyformer.data.cleaning import Cleaning
from tallyformer.data.passages import Document, SplitSource, passages_of
from tallyformer.data.sample import training_sample
from tallyformer.data.sources import text_source

CLEANING = Cleaning("NFC", 1, 10**7, drop_invalid=False, validation_fraction=0.1, seed=1337)
BOOK = "\n\n".join(
    f"Chapter {n}. " + " ".join(f"The bank lends {n * 7 + k} dollars." for k in range(30))
    for n in range(60)
)


def split(folder: Path, cleaning: Cleaning = CLEANING) -> tuple[SplitSource, list[Document]]:
    section = TextSource(name="s", paths=("*",))
    source = text_source(section, data_root=str(folder), seed=1337, max_chars=cleaning.max_chars)
    found = SplitSource.of(source, section, cleaning)
    documents = found.documents(source.rows(), source.files, source.required[0], Counter())
    return found, list(documents)


@given(st.text(st.sampled_from("a. \n日。")), st.integers(1, 9))
def test_passages_joined_are_the_text_and_none_is_too_long(text: str, size: int) -> None:
    passages = list(passages_of(text, size))
    assert "".join(passages) == text
    assert all(size <= len(p) <= 2 * size for p in passages[:-1]) and len(passages[-1]) <= 2 * size


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("aaaaa b\n\nc\nd e f gggg", "aaaaa b\n\n"),
        ("aaaaa b.\nc. d eeeeee", "aaaaa b.\n"),
        ("aaaaa b. c deeeee", "aaaaa b. "),
        ("aaaaaa。b c deeeee", "aaaaaa。"),
        ("aaaaa b ccccccccc", "aaaaa "),
        ("a" * 18, "a" * 10),
    ],
    ids=["paragraph", "line", "sentence", "full stop", "word", "none"],
)
def test_a_passage_ends_at_the_best_border(text: str, first: str) -> None:
    assert next(passages_of(text, 5)) == first


@pytest.mark.parametrize("fraction", [1e-6, 0.1, 0.5, 0.999999])
def test_one_book_is_trained_on_and_held_out_whatever_the_fraction(
    tmp_path: Path, fraction: float
) -> None:
    (tmp_path / "book.txt").write_text(BOOK)
    cleaning = Cleaning("NFC", 1, 10**7, False, fraction, 1337)
    found, documents = split(tmp_path, cleaning)
    sides = {held: [d.text for d in documents if d.held_out == held] for held in (False, True)}
    assert sides[False] and sides[True]
    letters = Counter("".join("".join(d.text for d in documents).split()))
    assert letters == Counter("".join(BOOK.split())), "nothing is lost"
    passages = {
        held: {p.strip() for text in texts for p in passages_of(text, found.passage)}
        for held, texts in sides.items()
    }
    assert not passages[False] & passages[True]


def test_neighbours_on_one_side_stay_one_document(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(BOOK)
    _, documents = split(tmp_path)
    assert all(a.held_out != b.held_out for a, b in itertools.pairwise(documents))
    share = sum(len(d.text) for d in documents if d.held_out) / len(BOOK)
    assert 0.03 < share < 0.25


def test_documents_stay_whole_where_the_split_leaves_both_sides_some(tmp_path: Path) -> None:
    rows = [{"text": f"{n} {BOOK[:3000]}"} for n in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, documents = split(tmp_path)
    assert not found.passage and len(documents) == 60


def test_the_vocabulary_is_not_learnt_from_held_out_passages(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(BOOK)
    _, documents = split(tmp_path)
    section = TextSource(name="s", paths=("*",))
    source = text_source(section, data_root=str(tmp_path), seed=1337, max_chars=10**7)
    texts = list(training_sample([source], [section], CLEANING, 10**7))
    assert texts == [d.text for d in documents if not d.held_out]


def test_a_text_of_one_short_passage_is_left_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A short note.")
    found, documents = split(tmp_path)
    assert not found.passage and len(documents) == 1
