from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.data.batch import IGNORED, BatchSource
from tallyformer.data.mixture import MixtureOrder, epoch_shares
from tallyformer.data.packed import PackedBatches, ValidationBatches
from tallyformer.errors import DataError

from .streams import EOT, counting, stream

counts = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 50), min_size=1)
weights = st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 10), min_size=1)


@given(counts, weights)
def test_shares_keep_the_epochs_length_and_the_weights(
    sequences: dict[str, int], weight: dict[str, float]
) -> None:
    part = {n: c for n, c in sequences.items() if n in weight}
    shares = epoch_shares(sequences, weight)
    assert sum(shares.values()) == sum(part.values())
    assert set(shares) == set(part)
    assert all(share >= 1 for share in shares.values())
    total = sum(weight[n] for n in part)
    exact = {name: sum(part.values()) * weight[name] / total for name in part}
    # Rounded up or down, never further, but for what the smallest are lifted to 1 with.
    lifted = sum(1 for value in exact.values() if value < 1)
    assert all(-1 - lifted < shares[n] - value < 1 for n, value in exact.items())


def test_without_weights_each_source_has_what_it_has() -> None:
    assert epoch_shares({"a": 3, "b": 5}, None) == {"a": 3, "b": 5}


@given(sequences=st.lists(st.integers(1, 30), min_size=1, max_size=3), seed=st.integers(0, 9))
def test_without_weights_an_epoch_is_every_sequence_once(sequences: list[int], seed: int) -> None:
    order = MixtureOrder(sequences, sequences, seed)
    everything = {(s, i) for s, count in enumerate(sequences) for i in range(count)}
    for epoch in range(3):
        places = np.arange(epoch * sum(sequences), (epoch + 1) * sum(sequences))
        seen = list(zip(*(a.tolist() for a in order.locate(places)), strict=True))
        assert len(seen) == len(everything) and set(seen) == everything


@given(
    sequences=st.lists(st.integers(1, 12), min_size=2, max_size=2),
    shares=st.lists(st.integers(1, 30), min_size=2, max_size=2),
    epochs=st.integers(1, 5),
)
def test_over_epochs_every_sequence_is_seen_equally_often(
    sequences: list[int], shares: list[int], epochs: int
) -> None:
    order = MixtureOrder(sequences, shares, seed=3)
    sources, numbers = order.locate(np.arange(epochs * sum(shares)))
    for source, (size, share) in enumerate(zip(sequences, shares, strict=True)):
        seen = Counter(numbers[sources == source].tolist())
        assert sum(seen.values()) == epochs * share
        often = [seen[n] for n in range(size)]
        assert max(often) - min(often) <= 1


@given(st.permutations(range(12)), st.integers(1, 5))
def test_a_batch_does_not_depend_on_what_was_asked_before(order: list[int], size: int) -> None:
    streams = {"a": counting("a", 50), "b": counting("b", 23, first=100)}

    def batches() -> PackedBatches:
        return PackedBatches(streams, context=4, batch_size=size, seed=5, weights={"a": 1, "b": 3})

    one, other = batches(), batches()
    expected = {i: one.batch(i) for i in sorted(order)}
    for i in order:
        assert torch.equal(other.batch(i).input_ids, expected[i].input_ids)
        assert torch.equal(other.batch(i).labels, expected[i].labels)


def test_labels_are_the_ids_that_follow_and_every_position_is_trained() -> None:
    source = PackedBatches({"a": counting("a", 41)}, context=8, batch_size=5, seed=0)
    assert isinstance(source.tokens_per_batch, int) and source.tokens_per_batch == 40
    batch = source.batch(0)
    whole = counting("a", 41).shards[0].tokens
    assert batch.input_ids.dtype == batch.labels.dtype == torch.int64
    rows = sorted(batch.input_ids.tolist(), key=lambda r: max(r))
    assert rows == whole[:40].reshape(5, 8).tolist()
    assert batch.labels[:, :-1].tolist() == batch.input_ids[:, 1:].tolist()
    assert sorted(batch.labels.flatten().tolist()) == sorted(whole[1:].tolist())


def test_an_end_of_text_belongs_to_the_document_that_follows() -> None:
    documents = [[10, 11], [20], [30, 31, 32]]
    source = PackedBatches({"a": stream("a", documents)}, context=8, batch_size=1, seed=0)
    batch = source.batch(0)
    assert batch.input_ids.tolist() == [[10, 11, EOT, 20, EOT, 30, 31, 32]]
    assert batch.labels.tolist() == [[11, EOT, 20, EOT, 30, 31, 32, EOT]]
    assert batch.segments is not None and batch.segments.dtype == torch.int32
    assert batch.segments.tolist() == [[0, 0, 1, 1, 2, 2, 2, 2]]
    assert source.documents(0) == ["a/f:1", "a/f:2", "a/f:3"]


def test_documents_may_attend_to_each_other_where_a_recipe_allows_it() -> None:
    source = PackedBatches(
        {"a": counting("a", 20)}, context=4, batch_size=1, seed=0, isolate_documents=False
    )
    assert source.batch(0).segments is None


def test_batches_go_on_across_epochs_so_that_nothing_is_left_out() -> None:
    source = PackedBatches({"a": counting("a", 29)}, context=4, batch_size=3, seed=0)
    assert source.batches_per_epoch == 3  # 7 sequences
    rows = [tuple(r) for i in range(7) for r in source.batch(i).input_ids.tolist()]
    assert set(Counter(rows).values()) == {3}


def test_epochs_by_source_follow_from_the_weights() -> None:
    streams = {"a": counting("a", 401), "b": counting("b", 101)}
    mixed = PackedBatches(streams, context=4, batch_size=3, seed=0, weights={"a": 1.0, "b": 1.0})
    # 100 and 25 sequences; an epoch has 125: 63 and 62.
    assert mixed.epochs_by_source(2) == {"a": 2 * 63 / 100, "b": 2 * 62 / 25}
    alone = PackedBatches(streams, context=4, batch_size=3, seed=0, weights={"b": 0.2})
    assert alone.epochs_by_source(3) == {"b": 3.0}


def test_too_little_text_for_one_sequence_is_an_error() -> None:
    with pytest.raises(DataError, match="kept 4 training tokens; one sequence needs 5"):
        PackedBatches({"a": counting("a", 4)}, context=4, batch_size=1, seed=0)
    streams = {"a": counting("a", 40), "b": counting("b", 3)}
    with pytest.raises(DataError, match="source 'b' has 3 training tokens"):
        PackedBatches(streams, context=4, batch_size=1, seed=0, weights={"a": 1, "b": 1})
    natural = PackedBatches(streams, context=4, batch_size=1, seed=0)
    assert natural.epochs_by_source(1) == {"a": 1.0}


@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=3).filter(lambda s: max(s) > 1),
    context=st.integers(2, 9),
    batch_size=st.integers(1, 4),
)
def test_validation_predicts_every_id_once(sizes: list[int], context: int, batch_size: int) -> None:
    streams = {
        f"s{n}": counting(f"s{n}", size, first=1000 * n + 10) for n, size in enumerate(sizes)
    }
    source = ValidationBatches(streams, context=context, batch_size=batch_size, max_tokens=10**6)
    labels = [
        i
        for number in range(source.batches_per_epoch)
        for i in source.batch(number).labels.flatten().tolist()
        if i != IGNORED
    ]
    expected = [i for s in streams.values() for i in s.shards[0].tokens[1:].tolist()]
    assert sorted(labels) == sorted(expected)


def test_padding_of_validation_is_seen_by_nobody() -> None:
    source = ValidationBatches(
        {"a": counting("a", 11, every=99)}, context=4, batch_size=2, max_tokens=99
    )
    batch = source.batch(1)
    assert batch.labels.tolist() == [[19, 20, IGNORED, IGNORED], [IGNORED] * 4]
    assert batch.segments is not None
    assert batch.segments[0].tolist() == [0, 0, 0, 1]
    assert batch.input_ids.shape == (2, 4)


def test_validation_takes_at_most_so_many_tokens_spread_over_the_sources() -> None:
    streams = {"a": counting("a", 401), "b": counting("b", 101, first=1000, every=500)}
    source = ValidationBatches(streams, context=4, batch_size=1, max_tokens=40)
    firsts = [int(source.batch(i).input_ids[0, 0]) for i in range(source.batches_per_epoch)]
    assert source.batches_per_epoch == 10
    assert [n for n in firsts if n >= 1000] == [1000, 1048]
    one = ValidationBatches(streams, context=4, batch_size=1, max_tokens=40, source="b")
    assert {name.split("/")[0] for i in range(10) for name in one.documents(i)} == {"b"}


@given(
    sizes=st.lists(st.integers(2, 400), min_size=1, max_size=4),
    limit=st.integers(1, 60),
    weighted=st.booleans(),
)
def test_validation_never_exceeds_its_limit_and_sees_every_source(
    sizes: list[int], limit: int, weighted: bool
) -> None:
    streams = {f"s{n}": counting(f"s{n}", size) for n, size in enumerate(sizes)}
    source = ValidationBatches(
        streams,
        context=4,
        batch_size=1,
        max_tokens=4 * limit,
        weights={name: n + 0.5 for n, name in enumerate(streams)} if weighted else None,
    )
    assert source.batches_per_epoch <= max(limit, len(streams))
    names = {n.split("/")[0] for i in range(source.batches_per_epoch) for n in source.documents(i)}
    assert names == set(streams)


def test_a_source_with_a_tiny_weight_is_seen() -> None:
    streams = {"a": counting("a", 401), "b": counting("b", 101)}
    mixed = PackedBatches(streams, context=4, batch_size=1, seed=0, weights={"a": 1.0, "b": 1e-9})
    assert mixed.epochs_by_source(1) == {"a": 124 / 100, "b": 1 / 25}


def test_empty_validation_is_an_error_that_names_the_key() -> None:
    streams = {"a": counting("a", 40), "b": counting("b", 1)}
    with pytest.raises(DataError, match=r"source 'b' is empty.*validation_fraction"):
        ValidationBatches(streams, context=4, batch_size=1, max_tokens=9, source="b")


def test_both_are_batch_sources() -> None:
    streams = {"a": counting("a", 40)}
    sources: list[BatchSource] = [
        PackedBatches(streams, context=4, batch_size=1, seed=0),
        ValidationBatches(streams, context=4, batch_size=1, max_tokens=9),
    ]
    assert [source.tokens_per_batch for source in sources] == [4, 4]
