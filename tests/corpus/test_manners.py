"""Laws of small talk, off-topic questions and follow-ups, and of the conversations made of them."""

from __future__ import annotations

from collections import Counter

from tallyformer.corpus.manners import (
    conversations,
    held_out_conversations,
    manners,
    questions_as_text,
)
from tallyformer.corpus.questions import facts
from tallyformer.evaluation.facts import contains_key_fact, normalise

MANNERS = manners()
CONVERSATIONS = list(conversations())
FACTS = facts()
SHORT = 30
"""Words of the longest answer; a small model learns short ones, and training time is tokens."""


def spoken(text: str) -> str:
    """A text without case, spaces at the ends and a last full stop or exclamation mark."""
    return text.casefold().strip(" .!")


def test_every_kind_is_there_with_names_of_its_own() -> None:
    assert len({manner.id for manner in MANNERS}) == len(MANNERS)
    kinds = Counter(manner.kind for manner in MANNERS)
    assert set(kinds) == {
        "greeting",
        "thanks",
        "goodbye",
        "identity",
        "unclear",
        "off-topic",
        "follow-up",
    }
    asked = Counter(m.kind for m in MANNERS for _ in m.questions)
    assert asked["greeting"] >= 40 and asked["thanks"] >= 30 and asked["goodbye"] >= 30
    assert asked["off-topic"] >= 180 and kinds["off-topic"] >= 25
    assert len({m.fact.id for m in MANNERS if m.fact}) > 0.75 * len(FACTS)
    assert {m.fact.topic for m in MANNERS if m.fact} == {fact.topic for fact in FACTS}


def test_every_answer_is_short_and_as_expected() -> None:
    for manner in MANNERS:
        assert contains_key_fact(manner.answer, manner.expected), manner.id
        assert len(manner.answer.split()) <= SHORT, manner.id
        assert manner.questions and manner.held_out, manner.id


def test_no_kind_gives_what_another_kind_is_expected_to_say() -> None:
    """So that a model which says the same to everything is not counted as right."""
    kinds = {m.kind: m for m in MANNERS if m.kind not in ("follow-up", "identity")}
    for kind, manner in kinds.items():
        others = [
            other for other in kinds if contains_key_fact(manner.answer, kinds[other].expected)
        ]
        assert others == [kind]


def test_no_follow_up_can_be_answered_by_saying_the_fact_again() -> None:
    for manner in MANNERS:
        if manner.fact:
            assert not contains_key_fact(manner.fact.answer, manner.expected), manner.id


def test_held_out_phrasings_are_in_no_conversation() -> None:
    said = {spoken(content) for turns in CONVERSATIONS for content in turns[::2]}
    for manner, turns in held_out_conversations():
        assert spoken(turns[-1]) not in said, manner.id
        if manner.fact:
            assert turns[:2] == (manner.fact.held_out[0], manner.fact.answer)
            assert spoken(turns[0]) not in said


def test_no_phrasing_of_small_talk_is_asked_twice_or_asks_for_a_fact() -> None:
    questions = [q for m in MANNERS if not m.fact for q in (*m.questions, *m.held_out)]
    assert len(set(questions)) == len(questions)
    of_facts = {normalise(q) for fact in FACTS for q in (*fact.questions, *fact.held_out)}
    assert not [q for q in questions if normalise(q) in of_facts]


def test_conversations_have_every_question_and_every_phrasing_once_as_their_beginning() -> None:
    assert len(set(CONVERSATIONS)) == len(CONVERSATIONS)
    assert all(len(turns) % 2 == 0 for turns in CONVERSATIONS)
    firsts = {turns[:2] for turns in CONVERSATIONS}
    assert firsts >= {(q, fact.answer) for fact in FACTS for q in fact.questions}
    assert firsts >= {(q, m.answer) for m in MANNERS if not m.fact for q in m.questions}
    later = {(turns[1], answer) for turns in CONVERSATIONS for answer in turns[3::2]}
    assert later >= {(m.fact.answer, m.answer) for m in MANNERS if m.fact}


def test_after_every_kind_of_turn_other_kinds_follow() -> None:
    answers = {m.answer: m.kind for m in MANNERS} | {fact.answer: "fact" for fact in FACTS}
    steps = Counter(
        (answers[one], answers[two])
        for turns in CONVERSATIONS
        for one, two in zip(turns[1::2], turns[3::2], strict=False)
    )
    for kind in ("follow-up", "off-topic", "thanks", "greeting", "fact"):
        assert steps["fact", kind] >= 3, kind
    for kind in ("greeting", "off-topic", "follow-up"):
        assert sum(count for (one, _), count in steps.items() if one == kind) >= 3, kind


def test_follow_ups_make_training_longer_by_less_than_half() -> None:
    """Follow-ups make training longer by less than half."""
    alone = sum(len(f"{q} {fact.answer}".split()) for fact in FACTS for q in fact.questions)
    assert sum(len(" ".join(turns).split()) for turns in CONVERSATIONS) < 1.45 * alone


def test_the_usual_question_goes_on_into_each_usual_follow_up() -> None:
    for manner in MANNERS:
        if manner.fact:
            before = (manner.fact.questions[0], manner.fact.answer)
            assert (*before, manner.questions[0], manner.answer) in CONVERSATIONS, manner.id


def test_the_text_of_the_questions_has_every_phrasing_and_every_follow_up_once() -> None:
    texts = list(questions_as_text())
    assert Counter(turns[:2] for turns in texts) == Counter(
        (q, fact.answer) for fact in FACTS for q in fact.questions
    )
    followed = Counter((turns[1], turns[3]) for turns in texts if len(turns) > 2)
    assert followed == Counter((m.fact.answer, m.answer) for m in MANNERS if m.fact)
    held_out = {spoken(q) for m in MANNERS for q in m.held_out}
    assert not held_out & {spoken(turns[2]) for turns in texts if len(turns) > 2}
