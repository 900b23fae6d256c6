"""What `evaluate` measured, as tables: perplexity, responses, facts, arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tallyformer.evaluation.statistics import (
    ENOUGH,
    Proportion,
    bootstrap_difference,
    shares_by_group,
)
from tallyformer.report.comparison import Comparison
from tallyformer.report.run_data import RunData
from tallyformer.report.tables import (
    Measure,
    Table,
    TableBuilder,
    fixed,
    interval_text,
    share_text,
    signed,
    signed_and_relative,
)
from tallyformer.report.verdicts import (
    NO_CLEAR,
    TOO_FEW,
    change_of,
    interval,
    judged,
    perplexity_change,
    verdict,
)

_PERPLEXITY = Measure("perplexity", fixed(2), signed_and_relative(2))
_BITS = Measure("bits per byte", fixed(4), signed(4))
_STAGES = {"merge": "fine-tuning", "distill": "distillation"}
_MODELS = {"distill": "distill (after its teacher)", "merge": "merge (after fine-tuning)"}
MOST_GROUPS = 12
"""Groups of questions that a table shows at once; more are folded away."""


def perplexity_tables(runs: Sequence[RunData]) -> list[Table]:
    """Perplexity and bits per byte of every model, a column each domain's validation text.

    Last, what distillation and fine-tuning changed of them.
    """
    common = Comparison.of(runs)
    found = [_by_key(run, "perplexity", ("domain", "model")) for run in runs]
    domains = _union(key[0] for rows in found for key in rows)
    models = _union(key[1] for rows in found for key in rows)
    how = "Mean over validation tokens, ends of documents included; lower is better."
    if "merge" in models:
        how += " Fine-tuning teaches answers, not texts, so it may raise these figures."
    tables = []
    for caption, key, measure, note in (
        (
            "Perplexity",
            "perplexity",
            _perplexity(common, common.texts),
            f"{how}{_measured_on(found, domains)}",
        ),
        ("Bits per byte", "bits_per_byte", _bits(common.texts), ""),
    ):
        builder = TableBuilder(
            f"{caption} of validation text, by domain",
            "model",
            [run.name for run in runs],
            [replace(measure, title=domain) for domain in domains],
        )
        for model in models:
            values = [[rows.get((d, model), {}).get(key) for rows in found] for d in domains]
            builder.add(_MODELS.get(model, model), values)
        tables.append(builder.table(note))
    tables.append(_changes_table(runs, found))
    return [table for table in tables if table]


def _perplexity(common: Comparison, same_data: bool) -> Measure:
    """Perplexities are compared on the same data in the same vocabulary alone."""
    comparable = common.vocabulary and same_data
    return _PERPLEXITY if comparable else replace(_PERPLEXITY, compare=None)


def _bits(same_data: bool) -> Measure:
    return _BITS if same_data else replace(_BITS, compare=None)


_CHANGE_MEASURES = (
    Measure("change", lambda row: perplexity_change(row["change"]["value"])),
    Measure("95% interval", lambda row: interval(change_of(row))),
    Measure("passages", lambda row: f"{row['passages']:,}"),
    Measure("verdict", verdict),
)


def _changes_table(
    runs: Sequence[RunData], found: Sequence[Mapping[tuple[str, str], Mapping[str, Any]]]
) -> Table | None:
    """By how much each stage changed the perplexity of the model that it began with."""
    builder = TableBuilder(
        "Change of the perplexity by distillation and fine-tuning",
        "stage and domain",
        [run.name for run in runs],
        _CHANGE_MEASURES,
    )
    for domain, model in _union(key for rows in found for key in rows):
        rows = [of_run.get((domain, model), {}) for of_run in found]
        changed = [row if row.get("change") else None for row in rows]
        if any(changed):
            builder.add(f"{_STAGES.get(model, model)}: {domain}", [changed] * len(_CHANGE_MEASURES))
    return builder.table(
        "From the model that the stage began with. The interval is a bootstrap over passages (what "
        f"a sequence holds of one document); fewer than {ENOUGH} are too few to tell."
    )


def _measured_on(found: Sequence[Mapping[Any, Mapping[str, Any]]], domains: Sequence[str]) -> str:
    """How many tokens each figure is the mean of."""
    parts = []
    for domain in domains:
        rows = [row for of_run in found for key, row in of_run.items() if key[0] == domain]
        tokens = sorted({row["tokens"] for row in rows if row.get("tokens")})
        if tokens:
            parts.append(f"{domain} {' or '.join(f'{count:,}' for count in tokens)}")
    return f" Tokens: {', '.join(parts)}." if parts else ""


def response_table(runs: Sequence[RunData]) -> Table | None:
    """Perplexity of held-out responses, before and after fine-tuning."""
    common = Comparison.of(runs)
    found = [_by_key(run, "responses", ("when", "model")) for run in runs]
    builder = TableBuilder(
        "Perplexity of held-out responses, before and after fine-tuning",
        "model",
        [run.name for run in runs],
        (
            _perplexity(common, common.pairs),
            _bits(common.pairs),
            Measure("responses", fixed(0)),
            Measure("tokens", fixed(0)),
        ),
    )
    keys = ("perplexity", "bits_per_byte", "passages", "tokens")
    for key in _union(key for rows in found for key in rows):
        rows = [of_run.get(key, {}) for of_run in found]
        builder.add(f"{key[0]} ({key[1]})", [[row.get(k) for row in rows] for k in keys])
    judgements = [
        _judgement(run, of_run, len(runs)) for run, of_run in zip(runs, found, strict=True)
    ]
    return builder.table(
        "Only the response and its end of text are counted, not the question." + "".join(judgements)
    )


def _judgement(run: RunData, rows: Mapping[tuple[str, str], Mapping[str, Any]], runs: int) -> str:
    """How sure the change by fine-tuning is."""
    row = next((row for (when, _), row in rows.items() if when == "after sft"), {})
    if "passages" not in row:
        return ""
    of = "" if runs == 1 else f" of {run.name}"
    return f" Change{of}{judged(row, 'responses')}."


def facts_tables(runs: Sequence[RunData]) -> list[Table]:
    """Held-out questions on the primer, all and by topic."""
    return _accuracy_tables(
        runs,
        "facts",
        "topic",
        "New wordings of trained questions on the primer whose answer contains the key fact",
        "all topics",
    )


def manners_tables(runs: Sequence[RunData]) -> list[Table]:
    """Held-out greetings, thanks, off-topic questions and follow-ups, all and by kind."""
    return _accuracy_tables(
        runs,
        "manners",
        "kind",
        "New wordings of small talk, off-topic questions and follow-ups, answered as expected",
        "all kinds",
    )


def arithmetic_tables(runs: Sequence[RunData]) -> list[Table]:
    """Held-out worked examples, all and by kind."""
    return _accuracy_tables(
        runs,
        "arithmetic",
        "kind",
        "Held-out worked examples whose answer contains the exact number",
        "all kinds",
    )


def _accuracy_tables(
    runs: Sequence[RunData], section: str, key: str, caption: str, total: str
) -> list[Table]:
    """All questions and their groups, in a table of its own if they are many."""
    answers = [run.results.get(section, {}).get("answers", []) for run in runs]
    names = [run.name for run in runs]
    same = len({frozenset(a["question"] for a in of_run) for of_run in answers}) == 1
    measures = (
        Measure("right", lambda p: f"{p.right} of {p.asked}"),
        Measure("share", lambda p: share_text(p.share), _share_difference if same else None),
        Measure("95% interval", lambda p: interval_text(p.interval)),
    )
    totals = [shares_by_group((total, a["right"]) for a in of_run) for of_run in answers]
    groups = [shares_by_group((a[key], a["right"]) for a in of_run) for of_run in answers]
    builder = TableBuilder(caption, key, names, measures)
    more = TableBuilder(f"Right answers by {key}", key, names, measures)
    many = len(set().union(*groups)) > MOST_GROUPS
    for into, shares in ((builder, totals), (more if many else builder, groups)):
        for name in sorted(set().union(*shares)):
            into.add(name, [[of_run.get(name) for of_run in shares]] * 3)
    asked = (run.results.get(section, {}).get("model") for run in runs)
    model = ", ".join(_union(name for name in asked if name))
    table = builder.table(
        f"Asked of: {model}. Greedy decoding. The interval is Wilson's.{_paired_note(answers)}"
    )
    return [found for found in (table, more.table()) if found]


def _paired_note(answers: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """How sure the difference of two runs is, over the questions that both were asked."""
    if len(answers) != 2:
        return ""
    first, second = ({a["question"]: a["right"] for a in of_run} for of_run in answers)
    both = [float(second[q]) - float(first[q]) for q in first if q in second]
    if not both:
        return ""
    if not any(both):
        return f" Of the {len(both)} questions asked of both, both have the same ones right."
    found = bootstrap_difference(both, [0.0], generator=np.random.default_rng(0))
    low, high = (f"{100 * value:+.1f}" for value in (found.low, found.high))
    sign = found.sign(len(both))
    judgement = {None: f": {TOO_FEW}", 0: f": {NO_CLEAR}"}.get(sign, "")
    return (
        f" On the {len(both)} questions asked of both, the second run's share differs by "
        f"{100 * found.value:+.1f} points (95% bootstrap interval {low} to {high}){judgement}."
    ).replace("-", "−")


def _share_difference(first: Proportion, second: Proportion) -> str:
    return signed(1, " points")(100 * first.share, 100 * second.share)


def _by_key(
    run: RunData, section: str, keys: tuple[str, str]
) -> dict[tuple[str, str], Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = run.results.get(section, [])
    return {(row[keys[0]], row[keys[1]]): row for row in rows}


def _union(items: Any) -> list[Any]:
    """Each item once, in the order of first sight."""
    return list(dict.fromkeys(items))
