"""What a run did and what went into it, as tables: stages, models, data, versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tallyformer.artifacts.stages import TRAINING_STAGES
from tallyformer.data.mixture import Epoch
from tallyformer.report.comparison import Comparison
from tallyformer.report.run_data import RunData
from tallyformer.report.tables import (
    Measure,
    Table,
    TableBuilder,
    duration,
    fixed,
    signed_and_relative,
)


def stages_table(runs: Sequence[RunData]) -> Table | None:
    """What each training stage reached and took."""
    common, compare = Comparison.of(runs), signed_and_relative(2)
    tuned = any(run.metrics("sft") for run in runs)
    comparable = common.vocabulary and common.texts and (common.pairs or not tuned)
    builder = TableBuilder(
        "Training stages",
        "stage",
        [run.name for run in runs],
        (
            Measure("perplexity before", fixed(2)),
            Measure("best perplexity", fixed(2), compare if comparable else None),
            Measure("time", duration),
            Measure("peak memory", fixed(0, " MB")),
            Measure("steps", fixed(0)),
            Measure("tokens read", fixed(0)),
            Measure("tokens/s", fixed(0), signed_and_relative(0)),
            Measure("precision", str),
        ),
    )
    keys = (
        "before",
        "validation_perplexity",
        "wall_seconds",
        "peak_memory_mb",
        "steps",
        "tokens",
        "tokens_per_second",
        "precision",
    )
    for stage in TRAINING_STAGES:
        metrics = [_with_sums(run.metrics(stage)) for run in runs]
        if not any(metrics):
            continue
        builder.add(stage, [[of_run.get(key) for of_run in metrics] for key in keys])
        for number in range(max(len(of_run.get("phases", ())) for of_run in metrics)):
            phase = [_phase(of_run, number) for of_run in metrics]
            label = f"{stage}, phase {number + 1}"
            builder.add(label, [[of_run.get(key) for of_run in phase] for key in keys])
    return builder.table(
        "Perplexity is of validation data, and lower is better: pretrain, teacher and distill "
        f"validate on texts, sft on held-out responses.{_kept(runs)} Peak memory is the process's "
        "main memory."
    )


def _with_sums(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's metrics under the names of the columns; what only phases record is added up."""
    before = metrics.get("validation_perplexity_before", metrics.get("response_perplexity_before"))
    phases = metrics.get("phases", ())
    if not phases:
        return {**metrics, "before": before} if metrics else {}
    sums = {key: sum(phase[key] for phase in phases) for key in ("steps", "tokens", "wall_seconds")}
    speed = sums["tokens"] / sums["wall_seconds"] if sums["wall_seconds"] else None
    return {**sums, "tokens_per_second": speed, **metrics, "before": before}


def _phase(metrics: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    """A phase's metrics; its perplexity on what all phases were measured on, if that is known."""
    phases: Sequence[Mapping[str, Any]] = metrics.get("phases", ())
    if number >= len(phases):
        return {}
    after: Sequence[float] = metrics.get("validation_perplexity_after_phases", ())
    if number >= len(after):
        return phases[number]
    before = [metrics["before"], *after][number]
    return {**phases[number], "before": before, "validation_perplexity": after[number]}


def _kept(runs: Sequence[RunData]) -> str:
    """Whose weights distillation left."""
    kept = {run.name: run.metrics("distill").get("best_phase") for run in runs}
    texts = [
        ("" if len(runs) == 1 else f"{name}: ")
        + (f"those of phase {phase}" if phase else "the student's own, which no phase improved")
        for name, phase in kept.items()
        if phase is not None
    ]
    return f" Weights that distill kept: {'; '.join(texts)}." if texts else ""


def models_table(runs: Sequence[RunData]) -> Table | None:
    """Which weights each number belongs to."""
    found: list[Mapping[str, Any]] = [run.results.get("models", {}) for run in runs]
    builder = TableBuilder(
        "The models that were measured",
        "model",
        [run.name for run in runs],
        (
            Measure("folder", str),
            Measure("parameters", fixed(0)),
            Measure("fingerprint", lambda value: str(value)[:16]),
        ),
    )
    for name in dict.fromkeys(name for models in found for name in models):
        of_runs = [models.get(name, {}) for models in found]
        keys = ("folder", "parameters", "fingerprint")
        builder.add(name, [[model.get(key) for model in of_runs] for key in keys])
    return builder.table("The fingerprint is that of the stage's result, shortened.")


def versions_table(runs: Sequence[RunData]) -> Table | None:
    """Versions of the packages that worked on the last stage of each run."""
    newest = [max(run.manifests.values(), key=lambda m: m.created, default=None) for run in runs]
    versions = [manifest.versions if manifest else {} for manifest in newest]
    builder = TableBuilder(
        "Versions", "package", [run.name for run in runs], (Measure("version", str),)
    )
    for name in dict.fromkeys(name for of_run in versions for name in of_run):
        builder.add(name, [[of_run.get(name) for of_run in versions]])
    return builder.table()


def data_tables(runs: Sequence[RunData]) -> list[Table]:
    """What `prepare` kept and dropped, and how often training saw it.

    Tables of each run, or of all where they are the same.
    """
    of_runs = [_data_tables_of(run) for run in runs]
    if all(tables == of_runs[0] for tables in of_runs):
        return of_runs[0]
    return [
        replace(table, caption=table.caption.replace(" by source", f" of {run.name} by source"))
        for run, tables in zip(runs, of_runs, strict=True)
        for table in tables
    ]


def _data_tables_of(run: RunData) -> list[Table]:
    tables = []
    if sources := run.metrics("prepare").get("sources"):
        tables.append(_documents_table("Documents by source", run, sources))
        tables.append(_tokens_table("Tokens by source", run, sources))
    if pairs := run.metrics("sft").get("pairs"):
        tables.append(_pairs_table("Question and answer pairs by source", run, pairs))
    return tables


def _documents_table(caption: str, run: RunData, sources: Mapping[str, Any]) -> Table:
    total = run.metrics("prepare")["total"]
    reasons = list(total["dropped"])
    measures = [
        Measure(title, fixed(0))
        for title in ("read", "kept", *(f"dropped: {_words(reason)}" for reason in reasons))
    ]
    builder = TableBuilder(caption, "source", [run.name], measures)
    for name, counts in {**sources, "all sources": total}.items():
        values = [counts["documents_in"], counts["documents"]["total"]]
        values += [counts["dropped"].get(reason, 0) for reason in reasons]
        builder.add(name, [[value] for value in values])
    table = builder.table("Read = kept + dropped.")
    assert table is not None
    return table


def _pairs_table(caption: str, run: RunData, pairs: Mapping[str, Any]) -> Table:
    reasons = list(dict.fromkeys(r for counts in pairs.values() for r in counts["dropped"]))
    titles = ("read", "training", "held out", *(f"dropped: {_words(r)}" for r in reasons))
    builder = TableBuilder(caption, "source", [run.name], [Measure(t, fixed(0)) for t in titles])
    for name, counts in pairs.items():
        values = [counts[key] for key in ("rows", "train", "validation")]
        values += [counts["dropped"].get(reason, 0) for reason in reasons]
        builder.add(name, [[value] for value in values])
    table = builder.table("Read = training + held out + dropped.")
    assert table is not None
    return table


def _tokens_table(caption: str, run: RunData, sources: Mapping[str, Any]) -> Table:
    passes = {stage: passes_by_source(run, stage) for stage in ("pretrain", "teacher", "distill")}
    passes = {stage: counts for stage, counts in passes.items() if counts}
    measures = [Measure(t, fixed(0)) for t in ("training tokens", "validation tokens")]
    measures += [Measure(f"epochs in {stage}", fixed(2)) for stage in passes]
    builder = TableBuilder(caption, "source", [run.name], measures)
    for name, counts in {**sources, "all sources": run.metrics("prepare")["total"]}.items():
        values = [counts["tokens"]["train"], counts["tokens"]["validation"]]
        builder.add(name, [[v] for v in (*values, *(p.get(name) for p in passes.values()))])
    table = builder.table("Epochs: how often a stage read each source's training tokens.")
    assert table is not None
    return table


def passes_by_source(run: RunData, stage: str) -> dict[str, float]:
    """How often a stage has read each source; empty if the stage or its tokens are unknown."""
    read = run.metrics(stage).get("tokens")
    tokens = {
        name: counts["tokens"]["train"]
        for name, counts in run.metrics("prepare").get("sources", {}).items()
    }
    context = _context(run.recipe, stage)
    if not (read and tokens and context):
        return {}
    epoch = Epoch.of(tokens, context, _weights(run.recipe, stage) or None)
    return epoch.passes(read / context)


def _context(recipe: Mapping[str, Any], stage: str) -> int | None:
    """Inputs of a sequence that the stage reads; None if the recipe is unknown."""
    section = (recipe.get("teacher") or {}) if stage == "teacher" else recipe
    context: int | None = (section.get("model") or {}).get("max_position_embeddings")
    return context


def _weights(recipe: Mapping[str, Any], stage: str) -> dict[str, float]:
    """The stage's own weights, else those of the sources, else none: the natural proportions."""
    section = recipe.get(stage) or {}
    if stage == "teacher":
        section = section.get("train") or {}
    own: dict[str, float] = section.get("weights") or {}
    sources = (recipe.get("prepare") or {}).get("sources") or []
    return own or {s["name"]: s["weight"] for s in sources if s.get("weight") is not None}


def _words(reason: str) -> str:
    return reason.replace("_", " ")
