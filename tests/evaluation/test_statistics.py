from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.evaluation.statistics import (
    ENOUGH,
    Z_95,
    Difference,
    Proportion,
    bootstrap_difference,
    bootstrap_mean_change,
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


def test_a_change_is_a_mean_over_tokens_and_its_interval_is_the_normal_one_for_many() -> None:
    """Of passages of equal length it is the mean's own interval, mean +- z s / sqrt(n)."""
    generator = np.random.default_rng(5)
    counts = np.full(400, 7)
    sums = generator.normal(-0.7, 2.0, 400)
    found = bootstrap_mean_change(sums, counts, generator=generator)
    reach = Z_95 * sums.std() / math.sqrt(400) / 7
    assert found.value == pytest.approx(sums.sum() / 2800)
    # 2,000 resamples leave about 3% of noise in the ends.
    assert found.low == pytest.approx(found.value - reach, abs=0.1 * reach)
    assert found.high == pytest.approx(found.value + reach, abs=0.1 * reach)


def test_long_passages_count_for_more() -> None:
    found = bootstrap_mean_change([10.0, 0.0], [10, 90], generator=np.random.default_rng(0))
    assert found.value == pytest.approx(0.1)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean_change([], [], generator=np.random.default_rng(0))


def test_a_sign_needs_an_interval_on_one_side_and_enough_observations() -> None:
    assert Difference(1.0, 0.5, 1.5).sign(ENOUGH) == 1
    assert Difference(-1.0, -1.5, -0.5).sign(ENOUGH) == -1
    assert Difference(0.1, -0.5, 0.7).sign(10 * ENOUGH) == 0
    assert Difference(1.0, 0.5, 1.5).sign(ENOUGH - 1) is None
