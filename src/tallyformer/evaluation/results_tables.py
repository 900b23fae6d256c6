"""What `evaluate` measured, as tables: perplexity, responses, facts, arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tallyformer.evaluation.run_data import RunData
from tallyformer.evaluation.statistics import Proportion, bootstrap_difference
from tallyformer.evaluation.tables import (
    Measure,
    Table,
    TableBuilder,
    fixed,
    share_text,
    signed,
    signed_and_relative,
)

_LOSS_MEASURES = (
    Measure("perplexity", fixed(2), signed_and_relative(2)),
    Measure("bits per byte", fixed(4), signed(4)),
    Measure("tokens", fixed(0)),
)
_LOSS_KEYS = ("perplexity", "bits_per_byte", "tokens")


def perplexity_table(runs: Sequence[RunData]) -> Table | None:
    """Perplexity of every model on every domain's validation text."""
    found = [_by_key(run, "perplexity", ("domain", "model")) for run in runs]
    builder = TableBuilder(
        "Perplexity and bits per byte on validation text, by domain and model",
        "model",
        [run.name for run in runs],
        _LOSS_MEASURES,
    )
    for domain in _union(key[0] for rows in found for key in rows):
        builder.group(domain)
        for model in _union(key[1] for rows in found for key in rows if key[0] == domain):
            rows = [of_run.get((domain, model), {}) for of_run in found]
            builder.add(model, [[row.get(key) for row in rows] for key in _LOSS_KEYS])
    return builder.table(
        "Mean over validation tokens, ends of documents included; lower is better."
    )


def response_table(runs: Sequence[RunData]) -> Table | None:
    """Perplexity of held-out responses, before and after fine-tuning."""
    found = [_by_key(run, "responses", ("when", "model")) for run in runs]
    builder = TableBuilder(
        "Perplexity of held-out responses, before and after fine-tuning",
        "model",
        [run.name for run in runs],
        _LOSS_MEASURES,
    )
    for key in _union(key for rows in found for key in rows):
        rows = [of_run.get(key, {}) for of_run in found]
        builder.add(f"{key[0]} ({key[1]})", [[row.get(k) for row in rows] for k in _LOSS_KEYS])
    return builder.table("Only the response and its end of text are counted, not the question.")


def facts_table(runs: Sequence[RunData]) -> Table | None:
    """Held-out questions on the primer, by topic."""
    return _accuracy_table(
        runs,
        "facts",
        "topic",
        "Held-out questions about the primer whose answer contains the key fact",
        "all topics",
    )


def arithmetic_table(runs: Sequence[RunData]) -> Table | None:
    """Held-out worked examples, by kind."""
    return _accuracy_table(
        runs,
        "arithmetic",
        "kind",
        "Held-out worked examples whose answer contains the exact number",
        "all kinds",
    )


def _accuracy_table(
    runs: Sequence[RunData], section: str, key: str, caption: str, total: str
) -> Table | None:
    answers = [run.results.get(section, {}).get("answers", []) for run in runs]
    builder = TableBuilder(
        caption,
        key,
        [run.name for run in runs],
        (
            Measure("right", lambda p: f"{p.right} of {p.asked}"),
            Measure("share", lambda p: share_text(p.share), _share_difference),
            Measure("95% interval", lambda p: " to ".join(map(share_text, p.interval))),
        ),
    )
    if any(answers):
        builder.add(total, [[_proportion(of_run) for of_run in answers]] * 3)
    for name in sorted({answer[key] for of_run in answers for answer in of_run}):
        of_group = [[a for a in of_run if a[key] == name] for of_run in answers]
        builder.add(name, [[_proportion(group) for group in of_group]] * 3)
    model = ", ".join(_union(run.results.get(section, {}).get("model", "") for run in runs))
    return builder.table(
        f"Asked of: {model}. Greedy decoding. The interval is Wilson's.{_paired_note(answers)}"
    )


def _paired_note(answers: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """How sure the difference of two runs is, over the questions that both were asked."""
    if len(answers) != 2:
        return ""
    first, second = ({a["question"]: a["right"] for a in of_run} for of_run in answers)
    both = [float(second[q]) - float(first[q]) for q in first if q in second]
    if not both:
        return ""
    found = bootstrap_difference(both, [0.0], generator=np.random.default_rng(0))
    low, high = (f"{100 * value:+.1f}" for value in (found.low, found.high))
    return (
        f" On the {len(both)} questions asked of both, the second run's share differs by "
        f"{100 * found.value:+.1f} points (95% bootstrap interval {low} to {high})."
    ).replace("-", "−")


def _share_difference(first: Proportion, second: Proportion) -> str:
    return signed(1, " points")(100 * first.share, 100 * second.share)


def _proportion(answers: Sequence[Mapping[str, Any]]) -> Proportion | None:
    if not answers:
        return None
    return Proportion(sum(bool(a["right"]) for a in answers), len(answers))


def _by_key(
    run: RunData, section: str, keys: tuple[str, str]
) -> dict[tuple[str, str], Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = run.results.get(section, [])
    return {(row[keys[0]], row[keys[1]]): row for row in rows}


def _union(items: Any) -> list[Any]:
    """Each item once, in the order of first sight."""
    return list(dict.fromkeys(items))
