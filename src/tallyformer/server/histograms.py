"""Histograms that cost little to observe: every token of every answer is an observation.

Those of prometheus_client search their buckets one by one and take two locks each time. These
belong to one event loop, which alone observes them and reads them out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Observations:
    """What was observed: how often in each bucket, and the sum.

    Args:
        borders: upper ends of the buckets, rising; what is above the last is counted too.
    """

    def __init__(self, borders: Sequence[float]) -> None:
        self._borders = borders
        self._counts = [0] * (len(borders) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, as if it had been observed so many times."""
        self._counts[bisect_left(self._borders, value)] += times
        self._sum += value * times

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Give all counts, each with those of the buckets below it."""
        ends = [*map(floatToGoString, self._borders), "+Inf"]
        below, buckets = 0, []
        for end, count in zip(ends, self._counts, strict=True):
            below += count
            buckets.append((end, below))
        family.add_metric(labels, buckets=buckets, sum_value=self._sum)


class ModelHistogram(Collector):
    """A histogram for each model.

    Args:
        name, words: as Prometheus shows it.
        borders: of the buckets.
    """

    def __init__(self, name: str, words: str, borders: Sequence[float]) -> None:
        self._name = name
        self._words = words
        self._borders = borders
        self._models: dict[str, Observations] = {}

    def labels(self, model: str) -> Observations:
        """Those of one model."""
        return self._models.setdefault(model, Observations(self._borders))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For a registry."""
        family = HistogramMetricFamily(self._name, self._words, labels=["model"])
        for model, observations in self._models.items():
            observations.add_to(family, [model])
        yield family
