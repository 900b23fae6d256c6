from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.config.data import PairSource
from tallyformer.data.batch import IGNORED
from tallyformer.data.conversations import (
    Conversation,
    ConversationBatches,
    encode_pair,
    truncations,
)
from tallyformer.data.held_out import held_out, units_of
from tallyformer.data.packing import pack_rows
from tallyformer.data.pairs import Pair, PairSplit, split_pairs
from tallyformer.errors import DataError
from tallyformer.tokenizer import Tokenizer

words = st.lists(st.sampled_from(["bond", "yield", "€", "<|user|>", "12.5%", "a"]), min_size=1)
sentences = words.map(" ".join)


@given(question=sentences, context=st.just("") | sentences, answer=sentences)
@settings(max_examples=200)
@pytest.mark.parametrize("length", [8, 24, 64])
def test_a_conversation_fits_and_keeps_the_end_of_the_question(
    tokenizer: Tokenizer, question: str, context: str, answer: str, length: int
) -> None:
    pair = Pair("p", question, answer, context)
    conversation = encode_pair(tokenizer, pair, length)
    ids, trained = list(conversation.ids), list(conversation.trained)
    assert len(ids) <= length + 1 and conversation.positions <= length
    assert ids[0] == tokenizer.user_id
    middle = ids.index(tokenizer.assistant_id)
    prompt, response = ids[1:middle], ids[middle + 1 :]
    assert trained == [False] * (middle + 1) + [True] * len(response)
    whole_prompt = tokenizer.encode(f" {pair.question} ")
    whole_response = [*tokenizer.encode(f" {answer}"), tokenizer.eot_id]
    assert prompt == whole_prompt[conversation.prompt_cut :]
    assert response == whole_response[: len(whole_response) - conversation.response_cut]
    assert prompt and response
    fits = len(whole_prompt) + len(whole_response) + 2 <= length + 1
    assert fits == (conversation.prompt_cut == conversation.response_cut == 0)
    if conversation.response_cut:  # only where the prompt has no more than its quarter
        assert len(prompt) == min(len(whole_prompt), (length + 1) // 4)
    if conversation.prompt_cut or conversation.response_cut:
        assert len(ids) == length + 1


def test_truncations_are_counted() -> None:
    kept = Conversation("a", (1, 2), (False, True))
    both = Conversation("b", (1, 2), (False, True), prompt_cut=1, response_cut=2)
    prompt = Conversation("c", (1, 2), (False, True), prompt_cut=1)
    assert truncations([kept, both, prompt]) == {"prompts_shortened": 2, "responses_cut": 1}


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=60), seed=st.integers(0, 5))
def test_packing_places_every_piece_once_within_the_capacity(lengths: list[int], seed: int) -> None:
    sizes = np.array(lengths)
    packings = [pack_rows(sizes, 20, (seed, e)) for e in range(3)]
    for rows in [*packings, pack_rows(sizes, 20, None)]:
        assert sorted(piece for row in rows for piece in row) == list(range(len(lengths)))
        assert all(0 < sum(lengths[p] for p in row) <= 20 for row in rows)
    assert len({len(rows) for rows in packings}) == 1
    emptiest = sorted(sum(lengths[p] for p in row) for row in packings[0])[:2]
    assert len(emptiest) < 2 or sum(emptiest) > 20, "two rows would have fitted in one"


def test_packing_fills_rows_that_can_be_filled() -> None:
    assert pack_rows(np.array([5, 5, 3, 7, 10]), 10, None) == [[4], [3, 2], [0, 1]]


def test_a_piece_longer_than_a_row_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="lengths must be 1 to 4"):
        pack_rows(np.array([5]), 4, None)


def conversations(tokenizer: Tokenizer, count: int) -> list[Conversation]:
    pairs = [Pair(f"p{n}", f"what is {n}", "a share " * (n % 5 + 1)) for n in range(count)]
    return [encode_pair(tokenizer, pair, 64) for pair in pairs]


def batches(tokenizer: Tokenizer, items: list[Conversation], **options: Any) -> Any:
    defaults = {"context": 64, "batch_size": 3, "seed": 1, "pad_id": tokenizer.pad_id}
    return ConversationBatches(items, **{**defaults, **options})


def rows_of(source: Any, numbers: range) -> list[Any]:
    found = []
    for number in numbers:
        batch = source.batch(number)
        parts = (batch.input_ids, batch.labels, batch.segments)
        found += list(zip(*(p.tolist() for p in parts), strict=True))
    return found


def test_rows_hold_whole_conversations_each_in_its_own_segment(tokenizer: Tokenizer) -> None:
    items = conversations(tokenizer, 20)
    source = batches(tokenizer, items, batch_size=1)
    found: Counter[tuple[int, ...]] = Counter()
    for ids, labels, segments in rows_of(source, range(source.batches_per_epoch)):
        for number in sorted(set(segments) - {0}):
            places = [p for p, s in enumerate(segments) if s == number]
            assert places == list(range(places[0], places[-1] + 1))
            got_ids = [ids[p] for p in places]
            got_labels = [labels[p] for p in places]
            found[tuple(got_ids)] += 1
            whole = next(c for c in items if list(c.ids[:-1]) == got_ids)
            assert got_labels == [
                i if t else IGNORED for i, t in zip(whole.ids[1:], whole.trained[1:], strict=True)
            ]
        padding = [p for p, s in enumerate(segments) if s == 0]
        assert all(ids[p] == tokenizer.pad_id and labels[p] == IGNORED for p in padding)
    assert found == Counter(c.ids[:-1] for c in items)


def test_the_first_id_of_the_response_is_learnt(tokenizer: Tokenizer) -> None:
    item = encode_pair(tokenizer, Pair("p", "what", "share"), 64)
    batch = batches(tokenizer, [item], batch_size=1).batch(0)
    ids, labels = batch.input_ids[0].tolist(), batch.labels[0].tolist()
    learnt = [i for i in labels if i != IGNORED]
    assert labels[ids.index(tokenizer.assistant_id)] == tokenizer.encode(" share")[0]
    assert learnt == [*tokenizer.encode(" share"), tokenizer.eot_id]


def test_every_epoch_has_each_conversation_once_in_another_order(tokenizer: Tokenizer) -> None:
    source = batches(tokenizer, conversations(tokenizer, 25), batch_size=1)
    length = source.batches_per_epoch
    epochs = [
        [name for i in range(e * length, (e + 1) * length) for name in source.documents(i)]
        for e in range(3)
    ]
    assert {tuple(sorted(names)) for names in epochs} == {tuple(sorted(f"p{n}" for n in range(25)))}
    assert len({tuple(names) for names in epochs}) == 3


@given(order=st.permutations(range(9)))
@settings(max_examples=20)
def test_a_batch_of_conversations_depends_on_its_number_alone(
    tokenizer: Tokenizer, order: list[int]
) -> None:
    items = conversations(tokenizer, 25)
    one, other = batches(tokenizer, items), batches(tokenizer, items)
    expected = [rows_of(one, range(i, i + 1)) for i in range(9)]
    for i in order:
        assert rows_of(other, range(i, i + 1)) == expected[i]


def test_without_shuffling_the_last_batch_is_filled_with_padding(tokenizer: Tokenizer) -> None:
    items = conversations(tokenizer, 25)
    source = batches(tokenizer, items, shuffle=False, batch_size=4)
    rows = rows_of(source, range(source.batches_per_epoch))
    learnt = sum(label != IGNORED for _, labels, _ in rows for label in labels)
    assert learnt == sum(sum(c.trained) for c in items)
    assert len(rows) == 4 * source.batches_per_epoch


def test_utilisation_is_the_share_of_positions_in_use(tokenizer: Tokenizer) -> None:
    source = batches(tokenizer, conversations(tokenizer, 25), batch_size=1)
    rows = rows_of(source, range(source.batches_per_epoch))
    used = sum(s != 0 for _, _, segments in rows for s in segments)
    assert source.utilisation == used / (64 * len(rows))


def test_no_conversation_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="no conversation is left"):
        batches(tokenizer, [])


def split(folder: Path, rows: list[dict[str, Any]], **options: Any) -> PairSplit:
    data = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "pairs.jsonl").write_text(data)
    section = PairSource(name="p", paths=("pairs.jsonl",), **options)
    return split_pairs([section], data_root=str(folder), validation_fraction=0.3, seed=3)


CONTEXT = {"context_fields": ("context",)}


def asked(rows: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """A row of each context and prompt."""
    return [
        {"context": context, "prompt": prompt, "response": f"answer {number}"}
        for number, (context, prompt) in enumerate(rows)
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "One passage.", " one\nPASSAGE. ", "Two", "Three", "Four"]),
            st.sampled_from(["What is it?", "what  is it?", "Why?", "When?"]),
        ),
        min_size=2,
    ).filter(lambda rows: len({" ".join(c.casefold().split()) for c, _ in rows}) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_no_context_and_no_prompt_without_one_is_on_both_sides(
    rows: list[tuple[str, str]], fraction: float, seed: int
) -> None:
    held = held_out(units_of(rows), fraction=fraction, seed=seed)
    units = [" ".join((context or prompt).casefold().split()) for context, prompt in rows]
    train, validation = (
        {unit for unit, side in zip(units, held, strict=True) if side == wanted}
        for wanted in (False, True)
    )
    assert train and validation and not train & validation


def test_a_passage_under_many_questions_is_on_one_side(tmp_path: Path) -> None:
    rows = [(f"Passage {n}", f"What is {q} of it?") for n in range(40) for q in range(6)]
    result = split(tmp_path, asked(rows), **CONTEXT)
    contexts = [{p.context for p in part} for part in (result.train, result.validation)]
    assert not contexts[0] & contexts[1] and contexts[0] | contexts[1] == {c for c, _ in rows}


def test_one_question_of_many_passages_is_held_out_for_some_of_them(tmp_path: Path) -> None:
    rows = [(f"Passage {n}", "What is the total revenue?") for n in range(200)]
    result = split(tmp_path, asked(rows), **CONTEXT)
    assert 30 < len(result.validation) < 90  # 0.3 of 200


def test_a_context_that_every_pair_has_leaves_the_split_to_the_prompts(tmp_path: Path) -> None:
    rows = [("You are a helpful accountant.", f"What is {n}?") for n in range(200)]
    result = split(tmp_path, asked(rows), **CONTEXT)
    assert 30 < len(result.validation) < 90


@pytest.mark.parametrize("fraction", [1e-9, 0.5, 1 - 1e-9])
def test_two_different_questions_are_one_to_train_on_and_one_held_out(fraction: float) -> None:
    units = units_of([("", "What?"), ("", "Why?")])
    assert sorted(held_out(units, fraction=fraction, seed=3)) == [False, True]


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_what_is_held_out_stays_so_at_a_larger_fraction(one: float, other: float) -> None:
    units = [f"question {n}" for n in range(30)]
    small, large = (held_out(units, fraction=f, seed=3) for f in sorted((one, other)))
    assert all(b or not a for a, b in zip(small, large, strict=True))


def test_equal_prompts_are_never_on_both_sides_and_nothing_is_lost(tmp_path: Path) -> None:
    rows = [
        {"prompt": text, "response": f"answer {n % 4}"}
        for n in range(200)
        for text in (f"Question {n // 4}?", f"  question\n {n // 4}?")
    ]
    result = split(tmp_path, rows)
    train, held = (
        {" ".join(p.prompt.casefold().split()) for p in part}
        for part in (result.train, result.validation)
    )
    assert not train & held
    assert len(train) + len(held) == 50 and held
    counts: Any = result.counts["p"]
    assert counts["rows"] == 400 == len(result.train) + len(result.validation)


def test_repetitions_and_empty_sides_are_counted(tmp_path: Path) -> None:
    good = {"prompt": "a", "response": "b"}
    rows = [good, good, {"prompt": " ", "response": "b"}, {"prompt": "c", "response": None}]
    counts: Any = split(tmp_path, rows).counts["p"]
    assert counts["rows"] == 4 and counts["train"] + counts["validation"] == 1
    assert counts["dropped"] == {"duplicate": 1, "empty_prompt": 1, "empty_response": 1}


def test_a_context_stands_before_the_prompt_where_a_row_has_one(tmp_path: Path) -> None:
    rows = [
        {"q": "one", "a": "x", "input": "first", "more": "second"},
        {"q": "two", "a": "x", "input": ""},
    ]
    options = {"prompt_field": "q", "response_field": "a", "context_fields": ("input", "more")}
    result = split(tmp_path, rows, **options)
    questions = sorted(p.question for p in [*result.train, *result.validation])
    assert questions == ["first\n\nsecond\n\none", "two"]


def test_a_pair_without_the_field_is_named(tmp_path: Path) -> None:
    message = (
        r"pairs\.jsonl:1: no field 'response'; there are 'prompt', 'reply'\. Name.*response_field"
    )
    with pytest.raises(DataError, match=message):
        split(tmp_path, [{"prompt": "a", "reply": "b"}])


def test_a_source_without_any_pair_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source 'p': gives no pair \(1 empty_response\)"):
        split(tmp_path, [{"prompt": "a", "response": ""}])


def test_repeat_counts_in_training_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "response": "x"} for n in range(40)]
    once, thrice = split(tmp_path, rows), split(tmp_path, rows, repeat=3)
    assert len(thrice.train) == 3 * len(once.train)
    assert list(thrice.validation) == list(once.validation)


def test_max_pairs_limits_the_rows_read(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "response": "x"} for n in range(40)]
    counts: Any = split(tmp_path, rows, max_pairs=7).counts["p"]
    assert counts["rows"] == 7
