"""The cache that is written in place holds what transformers' own, concatenated one holds."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from tallyformer.inference.cache import RowCache

HEADS, SIZE = 2, 4
_ACTIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 90)),
    st.tuples(st.just("select"), st.integers(0, 2**31)),
    st.tuples(st.just("keep"), st.integers(1, 120)),
    st.tuples(st.just("replace"), st.integers(0, 2**31)),
)


def _states(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(rows, HEADS, columns, SIZE, generator=generator)


@settings(deadline=None)
@given(rows=st.integers(1, 5), actions=st.lists(_ACTIONS, max_size=12))
def test_any_history_leaves_the_same_keys_and_values(
    rows: int, actions: list[tuple[str, int]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = RowCache(), DynamicCache()
    for cache_action, number in [("add", 3), *actions]:
        width = ours.get_seq_length()
        if cache_action == "add":
            keys, values = (_states(rows, number, generator) for _ in range(2))
            returned = ours.update(keys, values, 0)
            expected = theirs.update(keys, values, 0)
            assert all(map(torch.equal, returned, expected))
        elif cache_action == "select":
            index = torch.tensor([i for i in range(rows) if number >> i & 1] or [0])
            rows = len(index)
            ours.select_rows(index)
            theirs.batch_select_indices(index)
        elif cache_action == "keep":
            ours.keep_newest(min(number, width))
            layer = theirs.layers[0]
            layer.keys = layer.keys[:, :, -min(number, width) :]
            layer.values = layer.values[:, :, -min(number, width) :]
        else:
            index = torch.tensor([i for i in range(rows) if number >> i & 1] or [0])
            new, columns = RowCache(), number % width + 1
            keys, values = (_states(len(index), columns, generator) for _ in range(2))
            new.update(keys, values, 0)
            ours.replace_rows(index, new)
            theirs.layers[0].keys[index, :, -columns:] = keys
            theirs.layers[0].values[index, :, -columns:] = values
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert torch.equal(ours.layers[0].keys, theirs.layers[0].keys)
        assert torch.equal(ours.layers[0].values, theirs.layers[0].values)


def test_columns_that_are_there_are_seldom_copied() -> None:
    """One column at a time, the buffer moves a logarithmic number of times."""
    cache = RowCache()
    column = torch.zeros(1, HEADS, 1, SIZE)
    places = set()
    for _ in range(2000):
        keys, _ = cache.update(column, column, 0)
        places.add(keys.untyped_storage().data_ptr())
    assert len(places) < 15
