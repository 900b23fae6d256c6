from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.bench.loads import LoadRecord
from tallyformer.bench.summary import PERCENTILES, spread_of, summarise
from tallyformer.bench.timeline import Timeline

SECONDS = st.lists(st.floats(0, 100), min_size=1, max_size=300)


def answer(
    due: float, chunks: list[float], *, tokens: int | None = None, failure: str | None = None
) -> Timeline:
    """A request that was sent at once and ended with its last chunk."""
    return Timeline(
        number=0,
        due=due,
        sent=due,
        chunks=array("d", chunks),
        ended=chunks[-1] if chunks else due,
        prompt_tokens=7,
        tokens=len(chunks) if tokens is None else tokens,
        failure=failure,
    )


@given(SECONDS)
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(seconds: list[float]) -> None:
    found = spread_of(seconds)
    assert found is not None
    for percent, value in found.percentiles.items():
        not_above = sum(1000 * s <= value + 1e-3 for s in seconds)
        below = sum(1000 * s < value - 1e-3 for s in seconds)
        assert not_above >= percent / 100 * len(seconds) - 1e-9
        assert below <= percent / 100 * len(seconds) + 1e-9
    assert found.least <= found.percentiles[50] <= found.most


@given(SECONDS)
def test_a_percentile_that_so_few_values_cannot_tell_is_left_out(seconds: list[float]) -> None:
    found = spread_of(seconds)
    assert found is not None
    for percent in PERCENTILES[1:]:
        assert (percent in found.percentiles) == (len(seconds) * (100 - percent) >= 100)


def test_latencies_count_from_when_a_request_was_due() -> None:
    request = answer(10.0, [12.0, 12.5, 13.0])
    request.sent = 11.9
    assert request.ttft == 2.0
    assert request.end_to_end == 3.0
    assert request.itl == 0.5
    assert request.longest_pause == 0.5


def test_chunks_of_several_tokens_share_the_time_between_them() -> None:
    """Ten tokens in five chunks: the first chunk's two are there at once, eight take 4 s."""
    assert answer(0, [1, 2, 3, 4, 5], tokens=10).itl == 0.5
    assert answer(0, [1], tokens=10).itl is None


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=50),
    st.integers(1, 200),
    st.floats(0, 10),
    st.floats(0, 10),
)
def test_spans_that_meet_share_an_answers_tokens(
    chunks: list[float], tokens: int, first: float, second: float
) -> None:
    request = answer(0, sorted(chunks), tokens=tokens)
    a, b = sorted((first, second))
    parts = [request.tokens_within(*span) for span in ((-1, a), (a, b), (b, 11))]
    assert sum(parts) == pytest.approx(tokens)
    assert all(part >= 0 for part in parts)


def test_requests_outside_of_the_span_count_for_their_tokens_alone() -> None:
    early, inside = answer(-5, [-1, 1]), answer(2, [3, 4])
    late = answer(11, [12, 13])
    found = summarise(LoadRecord(0, 10, [early, inside, late]), ttft_ms=1e6, itl_ms=1e6)
    assert found.requests == 1
    assert found.tokens_per_second == 3 / 10
    assert found.ttft_ms is not None and found.ttft_ms.count == 1


def test_a_failure_is_counted_apart_and_never_as_a_fast_answer() -> None:
    good = answer(0, [2, 3])
    refused = answer(1, [], failure="HTTP 503")
    cut = answer(2, [2.001], failure="stream cut off")
    found = summarise(LoadRecord(0, 10, [good, refused, cut]), ttft_ms=3000, itl_ms=2000)
    assert found.requests == 3 and found.failed == 2
    assert found.failures == {"HTTP 503": 1, "stream cut off": 1}
    assert found.ttft_ms is not None and found.ttft_ms.least == 2000
    assert found.tokens_per_second == 2 / 10
    assert found.good_share == 1 / 3
    assert found.goodput == 1 / 10


@pytest.mark.parametrize(
    ("ttft_ms", "itl_ms", "good"), [(2000, 1000, 1), (1999, 1000, 0), (2000, 999, 0)]
)
def test_a_good_answer_meets_both_targets(ttft_ms: float, itl_ms: float, good: int) -> None:
    measured = LoadRecord(0, 10, [answer(0, [2, 3])])
    assert summarise(measured, ttft_ms=ttft_ms, itl_ms=itl_ms).good_share == good


def test_nothing_measured_is_nothing_and_no_zero() -> None:
    found = summarise(LoadRecord(0, 10, []), ttft_ms=1, itl_ms=1)
    assert found.ttft_ms is None and found.good_share is None and found.output_tokens is None
    assert found.stream_tokens_per_second is None
