"""What a finished stage's manifest has measured that a glance wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tallyformer.monitor.curve import plotted
from tallyformer.monitor.words import shown_text

_NUMBERS = (
    "validation_loss",
    "validation_perplexity",
    "validation_bits_per_byte",
    "response_perplexity",
    "best_step",
    "steps",
    "tokens",
    "tokens_per_second",
    "parameters",
    "vocab_size",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
)
_SHARES = ("facts", "manners", "arithmetic")
"""Held-out questions, of which so many were answered right."""
_MOST_DOMAINS = 6
_LONGEST_DOMAIN = 60


@dataclass(frozen=True)
class StageFact:
    """A number.

    Attributes:
        name: what was measured.
        value: the number.
        of: out of how many, where it is a count of right answers.
        about: the domain of the texts, or ""
    """

    name: str
    value: float
    of: float | None = None
    about: str = ""


def facts_of(metrics: Mapping[str, Any]) -> tuple[StageFact, ...]:
    """The facts of a stage's metrics, the ones that say most first; what is none is left out."""
    return (
        *_shares(metrics),
        *_prepared(metrics),
        *_numbers(metrics),
        *_after_the_last(metrics),
        *_by_domain(metrics),
    )


def _shares(metrics: Mapping[str, Any]) -> Iterator[StageFact]:
    for name in _SHARES:
        counts = _named(metrics.get(name))
        right, asked = plotted(counts.get("right")), plotted(counts.get("asked"))
        if right is not None and asked:
            yield StageFact(name, right, of=asked)


def _numbers(metrics: Mapping[str, Any]) -> Iterator[StageFact]:
    for name in _NUMBERS:
        value = plotted(metrics.get(name))
        if value is not None:
            yield StageFact(name, value)


def _after_the_last(metrics: Mapping[str, Any]) -> Iterator[StageFact]:
    """The perplexity of held-out responses: of the model after fine-tuning, if there is one."""
    found = [plotted(value) for value in _named(metrics.get("response_perplexity")).values()]
    if found and found[-1] is not None:
        yield StageFact("response_perplexity", found[-1])


def _by_domain(metrics: Mapping[str, Any]) -> Iterator[StageFact]:
    """The perplexity of validation texts by the last model of the pipeline."""
    of_models = list(_named(metrics.get("perplexity")).values())
    domains = _named(of_models[-1]) if of_models else {}
    for domain, value in list(domains.items())[:_MOST_DOMAINS]:
        number = plotted(value)
        if number is not None:
            yield StageFact("perplexity", number, about=shown_text(domain, _LONGEST_DOMAIN))


def _prepared(metrics: Mapping[str, Any]) -> Iterator[StageFact]:
    """How much text there is to train on, and to validate with."""
    total = _named(metrics.get("total"))
    for name, of, part in (
        ("documents", "documents", "total"),
        ("train_tokens", "tokens", "train"),
        ("validation_tokens", "tokens", "validation"),
    ):
        value = plotted(_named(total.get(of)).get(part))
        if value is not None:
            yield StageFact(name, value)


def _named(value: Any) -> Mapping[str, Any]:
    """Names and values; none of anything else."""
    return value if isinstance(value, dict) else {}
