"""The cache that is written in place holds, for every row, the columns that were written to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.inference.engine.cache import RowCache

HEADS, SIZE = 2, 4
_ACTIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 90)),
    st.tuples(st.just("drop"), st.integers(0, 100)),
    st.tuples(st.just("keep"), st.integers(1, 120)),
    st.tuples(st.just("join"), st.integers(1, 120)),
)


@pytest.fixture(scope="module", autouse=True)
def new_memory_holds_no_numbers() -> Iterator[None]:
    """What torch has not initialised is NaN, so that a place never written is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def _states(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(rows, HEADS, columns, SIZE, generator=generator)


@settings(deadline=None)
@given(rows=st.integers(1, 5), actions=st.lists(_ACTIONS, max_size=12))
def test_any_history_leaves_each_row_its_columns(rows: int, actions: list[tuple[str, int]]) -> None:
    generator = torch.Generator().manual_seed(0)
    cache = RowCache()
    expected: list[torch.Tensor] = [torch.zeros(2, HEADS, 0, SIZE)] * rows
    for action, number in [("add", 3), *actions]:
        if action == "add":
            keys, values = (_states(len(expected), number, generator) for _ in range(2))
            cache.update(keys, values, 0)
            expected = [torch.cat(p, 2) for p in zip(expected, _pairs(keys, values), strict=True)]
        elif action == "drop" and len(expected) > 1:
            row = number % len(expected)
            cache.drop_row(row)
            expected[row] = expected[-1]
            expected.pop()
        elif action == "keep":
            width = min(number, cache.get_seq_length())
            cache.keep_newest(width)
            expected = [pair[:, :, -width:] for pair in expected]
        elif action == "join":
            keys, values = (_states(number % 3 + 1, number, generator) for _ in range(2))
            new = RowCache()
            new.update(keys, values, 0)
            cache.join(new)
            expected += _pairs(keys, values)
        assert cache.get_seq_length() >= max(pair.shape[2] for pair in expected)
        _check(cache, expected)


def _pairs(keys: torch.Tensor, values: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.stack([keys, values], dim=1))


def _check(cache: RowCache, expected: list[torch.Tensor]) -> None:
    [layer] = cache.layers
    for row, pair in zip(_pairs(layer.keys, layer.values), expected, strict=True):
        assert torch.equal(row[:, :, row.shape[2] - pair.shape[2] :], pair)
        # A masked NaN would still reach the sum.
        assert row.isfinite().all()


def test_columns_that_are_there_are_seldom_copied() -> None:
    """One column at a time, the buffer moves a logarithmic number of times."""
    cache = RowCache()
    column = torch.zeros(1, HEADS, 1, SIZE)
    places = set()
    for _ in range(2000):
        keys, _ = cache.update(column, column, 0)
        places.add(keys.untyped_storage().data_ptr())
    assert len(places) < 15


def test_rows_that_are_there_are_seldom_copied() -> None:
    """One row at a time too."""
    cache, row = RowCache(), torch.zeros(1, HEADS, 3, SIZE)
    cache.update(row, row, 0)
    places = set()
    for _ in range(2000):
        new = RowCache()
        new.update(row, row, 0)
        cache.join(new)
        places.add(cache.layers[0].keys.untyped_storage().data_ptr())
    assert len(places) < 25
