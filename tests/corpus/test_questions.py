"""Laws of the primer and of the questions on it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from tallyformer.config.data import PairSource, TextSource
from tallyformer.corpus.primer import articles
from tallyformer.corpus.questions import Fact, facts
from tallyformer.data.sources import pair_source, text_source
from tallyformer.evaluation.facts import contains_key_fact, normalise

FACTS = facts()
PRIMER_WORDS = 25_000
MOST_OVERLAP = 0.75
"""Words that a held-out question and any training question share, of the words in either."""

WRONG = {
    "accounting-003": "A debit is an entry on the right side, and a credit is on the left side.",
    "accounting-011": "It shows what a firm owns over a period.",
    "accounting-033": "It is current liabilities divided by current assets.",
    "accounting-035": "Return on equity is net income divided by total assets.",
    "banking-011": "It is capital divided by deposits.",
    "banking-023": "It is the loan divided by the income of the borrower.",
    "corporate-finance-018": "Working capital is cash minus current liabilities.",
    "corporate-finance-036": "It is revenue minus the variable cost of capital.",
    "economics-004": "It is the change in price divided by the percentage change in quantity.",
    "economics-028": "It is the number of times that prices rise in a year.",
    "risk-009": "It is the risk-free rate divided by the volatility.",
}
RIGHT = {
    "banking-015": "It compares high-quality liquid assets with net cash outflows.",
    "corporate-finance-018": "Subtract current liabilities from current assets.",
    "economics-025": "Subtract inflation from it.",
    "personal-finance-024": "It comes straight off your tax bill.",
}


def by_id(name: str) -> Fact:
    return next(fact for fact in FACTS if fact.id == name)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def test_facts_have_names_of_their_own_and_two_held_out_questions_each() -> None:
    assert len({fact.id for fact in FACTS}) == len(FACTS) >= 228
    assert all(len(fact.held_out) == 2 for fact in FACTS)
    assert sum(len(fact.questions) for fact in FACTS) >= 3185


def test_no_question_is_asked_twice() -> None:
    every = [normalise(q) for fact in FACTS for q in (*fact.questions, *fact.held_out)]
    assert len(set(every)) == len(every)


def test_every_answer_holds_its_key_fact_and_no_other_one() -> None:
    for fact in FACTS:
        found = [other.id for other in FACTS if contains_key_fact(fact.answer, other.key_facts)]
        assert found == [fact.id], fact.answer


def test_no_question_gives_its_key_fact_away() -> None:
    for fact in FACTS:
        for question in (*fact.questions, *fact.held_out):
            assert not contains_key_fact(question, fact.key_facts), question


@pytest.mark.parametrize(("name", "answer"), WRONG.items(), ids=WRONG)
def test_a_wrong_answer_in_like_words_is_wrong(name: str, answer: str) -> None:
    assert not contains_key_fact(answer, by_id(name).key_facts)


@pytest.mark.parametrize(("name", "answer"), RIGHT.items(), ids=RIGHT)
def test_a_right_answer_in_other_words_is_right(name: str, answer: str) -> None:
    assert contains_key_fact(answer, by_id(name).key_facts)


def test_a_held_out_question_is_worded_unlike_every_training_question() -> None:
    trained = [words(question) for fact in FACTS for question in fact.questions]
    for fact in FACTS:
        for question in fact.held_out:
            own = words(question)
            assert max(len(own & other) / len(own | other) for other in trained) < MOST_OVERLAP


def test_no_source_of_the_package_holds_a_held_out_question() -> None:
    held_out = {normalise(question) for fact in FACTS for question in fact.held_out}
    texts = text_source(
        TextSource(name="s", corpus="questions"), data_root=".", seed=0, max_chars=9
    )
    pairs = pair_source(PairSource(name="s", corpus="questions"), data_root=".", seed=0)
    for source in (texts, pairs):
        asked = set()
        for row in source.rows():
            assert isinstance(row.payload, Mapping)
            asked.add(normalise(row.payload["prompt"]))
            assert row.payload["text"].startswith(row.payload["prompt"] + "\n\n")
        assert asked and not asked & held_out
    primer = normalise(" ".join(articles()))
    assert not [question for question in held_out if question in primer]


def test_the_primer_is_long_enough_to_learn_from() -> None:
    assert sum(len(article.split()) for article in articles()) >= PRIMER_WORDS
