"""A slot holds what was written to it, whatever is written, copied and grown around it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.inference.engine.cache import SlotCache

HEADS, SIZE = 2, 4
_ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True)),
    st.tuples(st.just("cut"), st.tuples(st.integers(0, 5), st.integers(0, 60))),
    st.tuples(st.just("copy"), st.tuples(st.integers(0, 5), st.integers(0, 5))),
)


@pytest.fixture(scope="module", autouse=True)
def new_memory_holds_no_numbers() -> Iterator[None]:
    """What torch has not initialised is NaN, so that a place never written is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


class Checked:
    """A cache of one layer, and what each slot holds: (2, H, ids, D)."""

    def __init__(self) -> None:
        self.cache = SlotCache()
        self.numbers = torch.Generator().manual_seed(0)
        self.held = dict.fromkeys(range(6), torch.zeros(2, HEADS, 0, SIZE))

    def write(self, slots: list[int]) -> None:
        """Of each slot another number of columns; shorter ones are padded on the left."""
        counts = [slot + 1 for slot in slots]
        width = max(counts)
        states = torch.randn(2, len(slots), HEADS, width, SIZE, generator=self.numbers)
        starts = [self.held[slot].shape[2] for slot in slots]
        positions = torch.full((len(slots), width), -1)
        for i, (slot, start, count) in enumerate(zip(slots, starts, counts, strict=True)):
            positions[i, width - count :] = torch.arange(start, start + count)
            states[:, i, :, : width - count] = torch.nan
            new = states[:, i, :, width - count :]
            self.held[slot] = torch.cat([self.held[slot], new], dim=2)
        self.cache.aim(slots, starts, positions, max(starts) + width)
        keys, values = self.cache.update(states[0], states[1], 0)
        for i, slot in enumerate(slots):
            length = self.held[slot].shape[2]
            assert torch.equal(torch.stack([keys[i], values[i]])[:, :, :length], self.held[slot])
        # A masked NaN would still reach the sum.
        assert keys.isfinite().all() and values.isfinite().all()


@settings(deadline=None)
@given(actions=st.lists(_ACTIONS, max_size=15))
def test_any_history_leaves_each_slot_its_columns(
    actions: list[tuple[str, tuple[int, int]]],
) -> None:
    checked = Checked()
    checked.write([0])
    for action, argument in [*actions, ("write", list(range(6)))]:
        if action == "write":
            checked.write(list(argument))
            continue
        slot, other = argument
        if action == "cut":
            checked.held[slot] = checked.held[slot][:, :, :other]
        elif checked.held[slot].shape[2] and slot != other:
            length = checked.held[slot].shape[2]
            checked.cache.copy(slot, other, length)
            checked.held[other] = checked.held[slot]


def test_padding_that_is_no_number_is_not_read_after_the_cache_has_grown() -> None:
    checked = Checked()
    for _ in range(30):
        checked.write(list(range(6)))


def test_columns_and_slots_that_are_there_are_seldom_copied() -> None:
    cache, places = SlotCache(), set()
    column = torch.zeros(1, HEADS, 1, SIZE)
    for at in range(2000):
        for slot in {0, at % 100}:
            cache.aim([slot], [at], torch.tensor([[at]]), at + 1)
            keys, _ = cache.update(column, column, 0)
        cache.aim([0], [at], torch.tensor([[at]]), at + 1)
        keys, _ = cache.update(column, column, 0)
        places.add(keys.untyped_storage().data_ptr())
    assert len(places) < 30


def test_slots_that_follow_one_another_are_read_where_they_are() -> None:
    cache = SlotCache()
    columns = torch.zeros(3, HEADS, 1, SIZE)
    cache.aim([0, 1, 2], [4, 7, 5], torch.tensor([[4], [7], [5]]), 8)
    keys, _ = cache.update(columns, columns, 0)
    cache.aim([0, 1, 2], [5, 8, 6], torch.tensor([[5], [8], [6]]), 9)
    again, _ = cache.update(columns, columns, 0)
    assert again.untyped_storage().data_ptr() == keys.untyped_storage().data_ptr()
