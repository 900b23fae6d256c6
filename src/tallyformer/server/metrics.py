"""Numbers for Prometheus: names and units by its conventions.

Source: https://prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.exposition import generate_latest

from tallyformer.server.histograms import ModelHistogram, Observations

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Metrics:
    """All measures of one server; two servers in a process share none.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._registry = CollectorRegistry()
        self._of_answers: dict[str, dict[str, Any]] = {}
        ProcessCollector(registry=self._registry)
        self._requests = self._counter(
            "requests", "Requests that have ended, by route and how.", "route", "outcome"
        )
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.", "model")
        self._generated = self._counter("generated_tokens", "Tokens of answers.", "model")
        self._queue = self._histogram("queue_seconds", "Seconds that an answer waited for a slot.")
        self._first = self._histogram(
            "time_to_first_token_seconds", "From a request's admission to its first token."
        )
        self._between = self._histogram(
            "inter_token_seconds", "From one token of an answer to the next."
        )
        self._whole = self._histogram("answer_seconds", "From admission to an answer's end.")
        self._rate = self._histogram(
            "answer_tokens_per_second",
            "Tokens of an answer by the seconds after its first.",
            _RATES,
        )
        self._gauges = {
            name: Gauge(f"tallyformer_{name}", words, ["model"], registry=self._registry)
            for name, words in (
                ("running_answers", "Answers that have a slot."),
                ("waiting_answers", "Answers that wait for a slot."),
                ("slots", "Answers that run at once at most."),
            )
        }

    def watch(self, model: str, llm: Any) -> None:
        """Read a model's slots whenever the numbers are asked for."""
        self._gauges["running_answers"].labels(model).set_function(lambda: llm.running)
        self._gauges["waiting_answers"].labels(model).set_function(lambda: llm.waiting)
        self._gauges["slots"].labels(model).set_function(lambda: llm.slots)

    def ended(self, route: str | None, status: int, whole: bool) -> None:
        """A request has ended."""
        self._requests.labels(route or "none", _outcome(status, whole)).inc()

    def answer(self, model: str) -> AnswerTimes:
        """What measures one answer from now on."""
        if model not in self._of_answers:
            self._of_answers[model] = {
                "generated": self._generated.labels(model),
                "queue": self._queue.labels(model),
                "first": self._first.labels(model),
                "between": self._between.labels(model),
                "whole": self._whole.labels(model),
                "rate": self._rate.labels(model),
            }
        return AnswerTimes(self.clock, **self._of_answers[model])

    def prompt(self, model: str, tokens: int) -> None:
        """A prompt has been taken."""
        self._prompt_tokens.labels(model).inc(tokens)

    def exposition(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"tallyformer_{name}", words, labels, registry=self._registry)

    def _histogram(
        self, name: str, words: str, borders: Sequence[float] = _SECONDS
    ) -> ModelHistogram:
        made = ModelHistogram(f"tallyformer_{name}", words, borders)
        self._registry.register(made)
        return made


class AnswerTimes:
    """When the tokens of one answer came."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        generated: Counter,
        queue: Observations,
        first: Observations,
        between: Observations,
        whole: Observations,
        rate: Observations,
    ) -> None:
        self._clock = clock
        self._generated = generated
        self._queue, self._first, self._between = queue, first, between
        self._whole, self._rate = whole, rate
        self._began = self._last = clock()
        self._came: float | None = None
        self._tokens = 0

    @property
    def first_seconds(self) -> float:
        """From admission to the first token, or until now."""
        return (self._clock() if self._came is None else self._came) - self._began

    @property
    def seconds(self) -> float:
        """From admission to the newest token."""
        return self._last - self._began

    def waited(self, seconds: float) -> None:
        """The answer has had a slot after so long."""
        self._queue.observe(seconds)

    def tokens(self, count: int) -> None:
        """So many tokens have come."""
        if not count:  # a prompt that is scored
            return
        now = self._clock()
        self._generated.inc(count)
        self._tokens += count
        if self._came is None:
            self._came = now
            self._first.observe(now - self._began)
            count -= 1
        if count:
            self._between.observe((now - self._last) / count, count)
        self._last = now

    def finished(self) -> None:
        """The answer is whole."""
        self._whole.observe(self._last - self._began)
        if self._came is not None and self._last > self._came:
            self._rate.observe((self._tokens - 1) / (self._last - self._came))


def _outcome(status: int, whole: bool) -> str:
    if status == 499 or (status < 400 and not whole):
        return "cancelled"
    if status < 400:
        return "ok"
    return "refused" if status < 500 else "failed"
