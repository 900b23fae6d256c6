"""Text of pretraining between conversations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.data.conversations import Conversation, ConversationBatches
from tallyformer.data.packed import PackedBatches
from tallyformer.data.replay import ReplayBatches

from .streams import EOT, counting

T = 8


def sources() -> tuple[ConversationBatches, PackedBatches]:
    said = [
        Conversation(f"c{n}", (2, n, 3, n, EOT), (False, False, False, True, True))
        for n in range(10, 17)
    ]
    conversations = ConversationBatches(said, context=T, batch_size=1, seed=3, pad_id=0)
    text = PackedBatches({"t": counting("t", 200, first=100)}, context=T, batch_size=1, seed=4)
    return conversations, text


@given(st.floats(0.01, 0.9), st.integers(1, 5), st.integers(1, 9))
def test_text_has_its_share_and_both_sources_are_read_in_order_without_gaps(share, size, batches):
    conversations, text = sources()
    mixed = ReplayBatches(conversations, text, share=share, batch_size=size)
    rows = [row for i in range(batches) for row in mixed.batch(i).input_ids]
    is_text = [bool((row >= 100).any()) for row in rows]
    assert sum(is_text) == math.floor(len(rows) * share)
    for source, wanted in ((text, True), (conversations, False)):
        of_source = [r for r, t in zip(rows, is_text, strict=True) if t == wanted]
        for number, row in enumerate(of_source):
            assert torch.equal(row, source.batch(number).input_ids[0])


def test_an_epoch_holds_every_conversation_and_names_what_it_holds():
    conversations, text = sources()
    mixed = ReplayBatches(conversations, text, share=0.25, batch_size=2)
    names = {name for i in range(mixed.batches_per_epoch) for name in mixed.documents(i)}
    assert names >= {f"c{n}" for n in range(10, 17)}
    assert any(name.startswith("t/") for name in names)
    assert mixed.tokens_per_batch == 2 * T


def test_labels_and_segments_are_those_of_the_sources():
    conversations, text = sources()
    batch = ReplayBatches(conversations, text, share=0.5, batch_size=2).batch(0)
    for row, source in enumerate((conversations, text)):
        for name in ("labels", "segments"):
            assert torch.equal(getattr(batch, name)[row], getattr(source.batch(0), name)[0])


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_number_of_rows_of_text_is_the_same_however_they_are_batched(share):
    one, four = (ReplayBatches(*sources(), share=share, batch_size=size).batch for size in (1, 4))
    rows = torch.cat([one(i).input_ids for i in range(8)])
    assert torch.equal(rows, torch.cat([four(i).input_ids for i in range(2)]))
