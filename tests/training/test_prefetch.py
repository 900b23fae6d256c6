"""Batches that are made beforehand."""

from __future__ import annotations

import threading

import pytest

from tallyformer.training.prefetch import Prefetch


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_each_number_gives_what_it_gives_alone_in_any_order(ahead: int) -> None:
    with Prefetch(lambda number: number**2, ahead=ahead) as squares:
        assert [squares(n) for n in (0, 1, 2, 3, 7, 8, 5, 5, 6)] == [
            n**2 for n in (0, 1, 2, 3, 7, 8, 5, 5, 6)
        ]


def test_the_next_ones_are_made_while_the_caller_works() -> None:
    made, third = [], threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if number == 2:
            third.set()
        return number

    with Prefetch(make, ahead=2) as numbers:
        assert numbers(0) == 0
        assert third.wait(60)
        assert numbers(1) == 1
    assert made[:3] == [0, 1, 2]


def test_an_error_comes_where_its_number_is_asked_for() -> None:
    def make(number: int) -> int:
        if number == 1:
            raise ValueError("damaged")
        return number

    with Prefetch(make, ahead=2) as numbers:
        assert numbers(0) == 0
        with pytest.raises(ValueError, match="damaged"):
            numbers(1)
        assert numbers(2) == 2


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    with Prefetch(lambda number: number, ahead=2) as numbers:
        numbers(0)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
