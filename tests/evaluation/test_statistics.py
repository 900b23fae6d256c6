from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.evaluation.statistics import (
    Z_95,
    Proportion,
    bootstrap_difference,
    wilson_interval,
)


@given(st.integers(1, 5000), st.data())
def test_the_ends_of_wilsons_interval_are_where_the_score_test_rejects(
    asked: int, data: st.DataObject
) -> None:
    """The interval's definition: |right/n - p| = z sqrt(p (1 - p) / n) at both ends p."""
    right = data.draw(st.integers(0, asked))
    low, high = wilson_interval(right, asked)
    assert 0 <= low <= right / asked <= high <= 1
    for end in (low, high):
        distance = abs(right / asked - end)
        reach = Z_95 * math.sqrt(end * (1 - end) / asked)
        assert math.isclose(distance, reach, rel_tol=1e-6, abs_tol=1e-9)


def test_wilsons_interval_equals_published_values() -> None:
    # Newcombe 1998, Table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for right, asked, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(right, asked) == pytest.approx((low, high), abs=5e-5)


def test_nothing_asked_says_nothing() -> None:
    assert Proportion(0, 0).interval == (0.0, 1.0)
    assert math.isnan(Proportion(0, 0).share)
    with pytest.raises(ValueError, match="3 right of 2"):
        Proportion(3, 2)


def test_the_bootstrap_interval_covers_the_true_difference_about_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        first, second = generator.normal(1.0, 1.0, 60), generator.normal(0.5, 2.0, 80)
        found = bootstrap_difference(first, second, generator=generator, resamples=300)
        covered += found.low <= 0.5 <= found.high
    # 95% of 200 is 190; 13 is four standard deviations, and the bootstrap is a little narrow.
    assert 175 <= covered <= 200


def test_the_bootstrap_repeats_with_its_generator_and_needs_values() -> None:
    a, b = [1.0, 2.0, 4.0], [0.0, 1.0]
    first, second = (
        bootstrap_difference(a, b, generator=np.random.default_rng(5)) for _ in range(2)
    )
    assert first == second
    assert first.value == pytest.approx(7 / 3 - 0.5)
    assert first.low < first.value < first.high
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_difference([], b, generator=np.random.default_rng(5))
