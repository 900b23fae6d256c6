"""From what was seen to numbers: percentiles, rates, goodput."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tallyformer.bench.loads import LoadRecord
from tallyformer.bench.timeline import Timeline

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Spread:
    """A quantity over requests, in milliseconds.

    Attributes:
        count: of the requests that have it.
        mean, least, most: of them.
        percentiles: by rank: the smallest value that is not exceeded by so many percent. One that
            so few requests cannot tell from the greatest is left out: the 99th needs 100.
    """

    count: int
    mean: float
    least: float
    most: float
    percentiles: dict[int, float]


def spread_of(seconds: Iterable[float | None]) -> Spread | None:
    """Of the values that are there, in seconds; None if none is."""
    values = np.array([v for v in seconds if v is not None]) * 1000
    if not len(values):
        return None
    ranked = {
        p: round(float(np.percentile(values, p, method="inverted_cdf")), 4)
        for p in PERCENTILES
        if p == 50 or len(values) * (100 - p) >= 100
    }
    mean, least, most = (round(float(f(values)), 4) for f in (np.mean, np.min, np.max))
    return Spread(len(values), mean, least, most, ranked)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What one cell comes to.

    Attributes:
        seconds: length of the measured span.
        requests: that were due in it, the failed ones included.
        failures: how many failed, by kind. They are part of nothing else but the share of good
            answers.
        tokens_per_second: of answers, all streams together.
        requests_per_second: the same in answers.
        prompt_tokens, output_tokens: a request's, on average.
        ttft_ms: from when a request was due to its first token with content.
        itl_ms: a request's mean time between tokens.
        end_to_end_ms: from when it was due to its end.
        longest_pause_ms: a request's longest wait for the next part of its answer.
        sent_late_ms: how much later than due requests were sent, a fault of the measuring side
            that is part of the other times.
        good_share: share of the requests that were answered within both targets; None where
            none was due.
        goodput: such answers a second.
    """

    seconds: float
    requests: int
    failures: dict[str, int]
    tokens_per_second: float
    requests_per_second: float
    prompt_tokens: float | None
    output_tokens: float | None
    ttft_ms: Spread | None
    itl_ms: Spread | None
    end_to_end_ms: Spread | None
    longest_pause_ms: Spread | None
    sent_late_ms: Spread | None
    good_share: float | None
    goodput: float

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(self.failures.values())

    @property
    def stream_tokens_per_second(self) -> float | None:
        """Of one stream after its first token, at the median."""
        if self.itl_ms is None or not self.itl_ms.percentiles[50]:
            return None
        return 1000 / self.itl_ms.percentiles[50]


def summarise(measured: LoadRecord, *, ttft_ms: float, itl_ms: float) -> Summary:
    """Numbers of a cell.

    Args:
        measured: what was seen.
        ttft_ms, itl_ms: the targets of a good answer.
    """
    counted = measured.counted
    answered = [r for r in counted if not r.failure]
    tokens = sum(r.tokens_within(measured.begin, measured.end) for r in measured.requests)
    mean_tokens = _mean([r.tokens for r in answered])
    good = sum(_is_good(r, ttft_ms, itl_ms) for r in answered)
    per_second = tokens / measured.seconds
    return Summary(
        seconds=measured.seconds,
        requests=len(counted),
        failures=dict(Counter(r.failure for r in counted if r.failure).most_common()),
        tokens_per_second=per_second,
        requests_per_second=per_second / mean_tokens if mean_tokens else 0.0,
        prompt_tokens=_mean([r.prompt_tokens for r in answered]),
        output_tokens=mean_tokens,
        ttft_ms=spread_of(r.ttft for r in answered),
        itl_ms=spread_of(r.itl for r in answered),
        end_to_end_ms=spread_of(r.end_to_end for r in answered),
        longest_pause_ms=spread_of(r.longest_pause for r in answered),
        sent_late_ms=spread_of(r.sent - r.due for r in counted),
        good_share=good / len(counted) if counted else None,
        goodput=good / measured.seconds,
    )


def _is_good(request: Timeline, ttft_ms: float, itl_ms: float) -> bool:
    return request.ttft * 1000 <= ttft_ms and (request.itl or 0.0) * 1000 <= itl_ms


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
