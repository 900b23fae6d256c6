import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.bench.arrivals import poisson_times
from tallyformer.bench.words import WORDS, prompt_of_words


def _first(count: int, rate: float, *key: int | str) -> np.ndarray:
    return np.array(list(itertools.islice(poisson_times(rate, *key), count)))


@given(st.floats(0.01, 1e4), st.integers(0, 2**32))
def test_a_key_gives_the_same_times_again_in_order(rate: float, seed: int) -> None:
    times = _first(50, rate, seed)
    assert (times == _first(50, rate, seed)).all()
    assert (np.diff(times) >= 0).all() and times[0] >= 0
    assert not np.array_equal(times, _first(50, rate, seed, "other"))


@given(st.floats(0.01, 1e4))
def test_another_rate_is_another_scale(rate: float) -> None:
    assert np.allclose(_first(50, 1.0, "a") / rate, _first(50, rate, "a"))


def test_gaps_are_exponential_and_independent() -> None:
    gaps = np.diff(_first(100_001, 5.0, "gaps"))
    for quantile in (0.1, 0.5, 0.9, 0.99):
        expected = -math.log(1 - quantile) / 5
        share = (gaps <= expected).mean()
        # Five standard deviations of a share of 100,000 draws.
        assert abs(share - quantile) < 5 * math.sqrt(quantile * (1 - quantile) / len(gaps))
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 5 / math.sqrt(len(gaps))


@given(st.integers(1, 300), st.integers(0, 2**32))
def test_a_prompt_has_its_words_and_a_key_its_own(count: int, seed: int) -> None:
    prompt = prompt_of_words(count, seed)
    assert len(prompt.split()) == count and set(prompt.split()) <= set(WORDS)
    assert prompt == prompt_of_words(count, seed)


def test_prompts_of_a_cell_begin_differently() -> None:
    assert len({prompt_of_words(4, number) for number in range(1000)}) > 990
