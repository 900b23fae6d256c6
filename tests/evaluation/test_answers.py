"""Facts, arithmetic and samples, asked of a tiny real model, and how answers are judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tallyformer.corpus.worked_examples import held_out_examples
from tallyformer.data.pairs import Pair
from tallyformer.evaluation.answers import greedy_answers
from tallyformer.evaluation.arithmetic import ask_arithmetic
from tallyformer.evaluation.facts import ask_facts, contains_key_fact, normalise
from tallyformer.evaluation.samples import (
    BEGINNING_WORDS,
    CONTINUATION_WORDS,
    COUNT,
    Question,
    beginnings_of_texts,
    questions_of_facts,
    questions_of_pairs,
    take_samples,
)
from tallyformer.evaluation.statistics import shares_by_group
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams


class _Fact:
    """The fields of a fact that are read here."""

    def __init__(self, number: int, topic: str, keys: tuple[str, ...]):
        self.id, self.topic = f"{topic}-{number:03}", topic
        self.held_out = (f"What is {topic} {number}?", f"Define {topic} {number}.")
        self.answer, self.key_facts = f"It is {keys[0]}.", keys


FACTS = [_Fact(n, topic, (f"key {n}",)) for topic in ("banking", "risk") for n in range(4)]


def test_greedy_answers_are_what_the_model_answers_alone(model_folder: Path) -> None:
    llm = LLM.from_pretrained(model_folder, dtype="float32")
    questions = ["What is a bond?", "What is the coupon of a share?", "Why?"] * 30
    answers = greedy_answers(llm, max_tokens=8, label="test")(questions)
    params = SamplingParams(max_tokens=8, temperature=0.0)
    for question, answer in list(zip(questions, answers, strict=True))[:3]:
        alone = llm.chat([{"role": "user", "content": question}], params)
        assert answer == alone.text.strip()
    assert answers[:3] == answers[3:6] and len(answers) == len(questions)


def test_every_held_out_question_is_asked_once_and_judged_by_its_own_key_facts() -> None:
    asked: list[str] = []

    def ask(questions: Sequence[str]) -> list[str]:
        asked.extend(questions)
        # Right for banking, wrong for risk: there the key fact of another fact is given.
        return [f"Key  {q[-2] if 'banking' in q else '9'}!" for q in questions]

    answers = ask_facts(FACTS, ask)  # type: ignore[arg-type]
    assert asked == [question for fact in FACTS for question in fact.held_out]
    assert [a.question for a in answers] == asked
    scores = shares_by_group((a.topic, a.right) for a in answers)
    assert (scores["banking"].right, scores["banking"].asked) == (8, 8)
    assert (scores["risk"].right, scores["risk"].asked) == (0, 8)
    assert list(scores) == ["banking", "risk"]


@pytest.mark.parametrize(
    ("answer", "keys"),
    [
        ("Total debits are EQUAL to\n total credits.", ["equal to total credits"]),
        ("It's the owner’s equity", ["owner's equity"]),
        ("assets = liabilities + equity", ["liabilities plus equity", "liabilities + equity"]),
        ("about 1,000,000 people", ["1000000"]),
        ("a low-risk asset", ["low risk"]),
        ("it pays dividends", ["dividend"]),
        ("between -1 and +1.", ["between -1 and +1"]),
        ("up to $250,000, insured", ["$250,000"]),
    ],
)
def test_a_key_fact_is_found_whatever_the_case_spacing_and_punctuation(
    answer: str, keys: list[str]
) -> None:
    assert contains_key_fact(answer, keys)


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("an asterisk", "risk"),
        ("110%", "10%"),
        ("12.55", "12.5"),
        ("3.12", "12"),
        ("the price falls", "the price rises"),
        ("", "anything"),
        ("something", "..."),
    ],
)
def test_a_part_of_another_word_or_number_is_no_key_fact(answer: str, key: str) -> None:
    assert not contains_key_fact(answer, [key])


def test_normalising_keeps_signs_that_carry_meaning() -> None:
    assert (
        normalise(" The  +5.5% rise, (U.S.A.) — $1,250.50; _x_ ") == "the+5.5%rise u s a$1250.50 x"
    )


def test_arithmetic_is_right_only_with_the_exact_number() -> None:
    examples = list(held_out_examples(74, seed=2))
    answers = ask_arithmetic(examples, lambda questions: [e.response for e in examples])
    assert all(a.right for a in answers)
    scores = shares_by_group((a.kind, a.right) for a in answers)
    assert {kind: score.asked for kind, score in scores.items()} == {e.kind: 2 for e in examples}
    shifted = ask_arithmetic(
        examples, lambda questions: [e.response.replace(e.answer, "1" + e.answer) for e in examples]
    )
    wrong = [a for a in shifted if a.kind not in ("percentage-change",)]
    assert not any(a.right for a in wrong if a.expected[0].isdigit())


def test_a_model_that_repeats_the_question_computes_nothing() -> None:
    examples = list(held_out_examples(300, seed=4))
    assert not any(a.right for a in ask_arithmetic(examples, list))


def test_samples_of_the_shipped_questions_are_held_out_ones_of_different_facts() -> None:
    questions = questions_of_facts(FACTS)  # type: ignore[arg-type]
    assert len({question.text for question in questions}) == COUNT
    answers = {question: fact.answer for fact in FACTS for question in fact.held_out}
    assert all(answers[question.text] == question.expected for question in questions)
    samples = take_samples(questions, lambda qs: [q.upper() for q in qs])
    expected = [(q.text, q.text.upper(), q.expected) for q in questions]
    assert [(s.question, s.answer, s.expected) for s in samples] == expected


def test_samples_of_own_pairs_are_spread_over_them_with_their_contexts() -> None:
    pairs = [Pair(f"own/{i}", f"Why {i}?", f"So {i}.", context="Text.") for i in range(50)]
    questions = questions_of_pairs(pairs)
    assert [q.text for q in questions] == [f"Text.\n\nWhy {i}?" for i in (0, 10, 20, 30, 40)]
    assert [q.expected for q in questions] == [f"So {i}." for i in (0, 10, 20, 30, 40)]
    both = [Question(pair.question, pair.response) for pair in pairs[:2]]
    assert questions_of_pairs(pairs[:2]) == both


def test_samples_of_texts_are_their_first_words_and_how_they_go_on() -> None:
    words = [str(i) for i in range(100)]
    texts = ["too short a text", *[" ".join(words[i:]) for i in range(9)]]
    found = beginnings_of_texts(texts)
    assert [q.text.split()[0] for q in found] == ["0", "1", "2", "3", "4"]
    for number, question in enumerate(found):
        whole = words[number : number + BEGINNING_WORDS + CONTINUATION_WORDS]
        assert f"{question.text} {question.expected}".split() == whole
