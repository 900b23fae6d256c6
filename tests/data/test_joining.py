"""Pairs one after another in one conversation."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.data.conversations import encode_pair
from tallyformer.data.joining import join_conversations, training_conversations
from tallyformer.data.pairs import Pair
from tallyformer.tokenizer import Tokenizer

QUESTIONS = ["what is a bond", "what is a share", "hello", "why", "and a loan", "thanks"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(QUESTIONS * 20, vocab_size=270)


def pairs(count: int, system: str = "") -> list[Pair]:
    return [Pair(f"p{n}", QUESTIONS[n % 6], f"answer {n}", system=system) for n in range(count)]


@given(count=st.integers(1, 30), most=st.integers(1, 4), seed=st.integers(0, 9))
def test_every_pair_is_in_one_conversation_whole_and_none_is_too_long(
    tokenizer, count, most, seed
) -> None:
    context = 64
    alone = [encode_pair(tokenizer, pair, context) for pair in pairs(count)]
    joined = join_conversations(alone, most=most, context=context, seed=seed)
    assert Counter(name for c in joined for name in c.id.split(" + ")) == Counter(
        c.id for c in alone
    )
    by_name = {c.id: c for c in alone}
    for conversation in joined:
        parts = [by_name[name] for name in conversation.id.split(" + ")]
        assert 1 <= len(parts) <= most
        assert conversation.ids == sum((part.ids for part in parts), ())
        assert conversation.trained == sum((part.trained for part in parts), ())
        assert conversation.positions <= context
    if most == 1:
        assert joined == alone


def test_a_joined_conversation_is_what_its_turns_are_encoded_to_together(tokenizer) -> None:
    alone = [encode_pair(tokenizer, pair, 200) for pair in pairs(12)]
    joined = max(
        join_conversations(alone, most=3, context=200, seed=1), key=lambda c: c.id.count(" + ")
    )
    of = {pair.id: pair for pair in pairs(12)}
    first, *others = (of[name] for name in joined.id.split(" + "))
    assert len(others) == 2
    later = tuple(text for pair in others for text in (pair.prompt, pair.response))
    whole = Pair("x", first.prompt, first.response, later=later)
    together = encode_pair(tokenizer, whole, 200)
    assert (joined.ids, joined.trained) == (together.ids, together.trained)


def test_each_number_of_pairs_occurs_and_the_seed_decides(tokenizer) -> None:
    alone = [encode_pair(tokenizer, pair, 500) for pair in pairs(300)]
    first, again, other = (
        join_conversations(alone, most=3, context=500, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other
    numbers = Counter(c.id.count(" + ") + 1 for c in first)
    assert set(numbers) == {1, 2, 3} and min(numbers.values()) > 20


def test_pairs_with_a_system_message_stay_alone(tokenizer) -> None:
    mixed = pairs(5, system="be brief") + pairs(20)
    found = training_conversations(tokenizer, mixed, context=200, most=3, seed=0)
    assert found[:5] == [encode_pair(tokenizer, pair, 200) for pair in mixed[:5]]
    assert any(" + " in c.id for c in found[5:])
