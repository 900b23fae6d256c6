"""What a run is and what went into it, as tables: stages, models, data, versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tallyformer.evaluation.run_data import TRAINING_STAGES, RunData
from tallyformer.evaluation.tables import (
    Measure,
    Table,
    TableBuilder,
    duration,
    fixed,
    signed_and_relative,
)


@dataclass(frozen=True)
class Card:
    """The head of a run: its name and the facts that say what it is."""

    name: str
    description: str
    facts: list[tuple[str, str]]


def run_card(run: RunData) -> Card:
    """Recipe, model size, tokens, time and machine, as far as they are known."""
    trained = [run.metrics(stage) for stage in TRAINING_STAGES if run.metrics(stage)]
    tokens = sum(metrics.get("tokens", 0) for metrics in trained)
    seconds = sum(metrics.get("wall_seconds", 0) for metrics in trained)
    facts = [
        ("recipe", str(run.recipe.get("name", ""))),
        ("model", _model_text(run)),
        ("tokens", f"{tokens:,} read in training, over all stages" if tokens else ""),
        ("time", f"{duration(seconds)} of training" if seconds else ""),
        ("machine", _machine_text(run.results.get("machine", {}))),
        ("seed", str(run.recipe.get("seed", ""))),
        ("made", _made(run)),
    ]
    return Card(
        run.name, str(run.recipe.get("description", "")), [fact for fact in facts if fact[1]]
    )


def stages_table(runs: Sequence[RunData]) -> Table | None:
    """What each training stage took and reached."""
    builder = TableBuilder(
        "Training stages",
        "stage",
        [run.name for run in runs],
        (
            Measure("steps", fixed(0)),
            Measure("tokens read", fixed(0)),
            Measure("time", duration),
            Measure("tokens per second", fixed(0), signed_and_relative(0)),
            Measure("best validation perplexity", fixed(2), signed_and_relative(2)),
            Measure("peak memory", fixed(0, " MB")),
            Measure("precision", str),
        ),
    )
    keys = (
        "steps",
        "tokens",
        "wall_seconds",
        "tokens_per_second",
        "validation_perplexity",
        "peak_memory_mb",
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
        "Each stage validates on its own data: pretrain, teacher and distill on texts, sft on "
        "held-out responses."
    )


def _with_sums(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A stage of several phases records them one by one; this adds up what it leaves out."""
    phases = metrics.get("phases", ())
    if not phases:
        return dict(metrics)
    sums = {key: sum(phase[key] for phase in phases) for key in ("steps", "tokens", "wall_seconds")}
    speed = sums["tokens"] / sums["wall_seconds"] if sums["wall_seconds"] else None
    return {**sums, "tokens_per_second": speed, **metrics}


def _phase(metrics: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    phases: Sequence[Mapping[str, Any]] = metrics.get("phases", ())
    return phases[number] if number < len(phases) else {}


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
    return builder.table("The fingerprint is that of the stage's manifest, shortened.")


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
    """What `prepare` kept and dropped, a table a run, and how often training saw it."""
    tables = []
    for run in runs:
        of = "" if len(runs) == 1 else f" of {run.name}"
        if sources := run.metrics("prepare").get("sources"):
            tables.append(_documents_table(f"Documents{of} by source", run, sources))
            tables.append(_tokens_table(f"Tokens{of} by source", run, sources))
        if pairs := run.metrics("sft").get("pairs"):
            tables.append(_pairs_table(f"Question and answer pairs{of} by source", run, pairs))
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
    weights = _weights(run.recipe, stage) or tokens
    total = sum(weights.get(name, 0) for name in tokens)
    if not (read and total):
        return {}
    return {
        name: read * weights.get(name, 0) / total / size for name, size in tokens.items() if size
    }


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


def _made(run: RunData) -> str:
    newest = max((m.created for m in run.manifests.values()), default="")
    return newest.replace("T", " ").replace("+00:00", " UTC")


def _model_text(run: RunData) -> str:
    models = run.results.get("models", {})
    sizes = [model.get("parameters") for model in models.values()] or [
        run.metrics("pretrain").get("parameters")
    ]
    shape = run.recipe.get("model") or {}
    parts = [
        f"{sizes[-1]:,} parameters" if sizes[-1] else "",
        _count(shape, "num_hidden_layers", "blocks"),
        _count(shape, "hidden_size", "wide"),
        _count(shape, "num_attention_heads", "heads"),
        f"context {shape['max_position_embeddings']}" if "max_position_embeddings" in shape else "",
    ]
    return ", ".join(part for part in parts if part)


def _count(shape: Mapping[str, Any], key: str, unit: str) -> str:
    return f"{shape[key]} {unit}" if key in shape else ""


def _machine_text(machine: Mapping[str, Any]) -> str:
    parts = [
        machine.get("gpu") or "",
        machine.get("processor") or "",
        f"{machine['cores']} cores" if machine.get("cores") else "",
        f"{machine['memory_gb']} GB" if machine.get("memory_gb") else "",
    ]
    return ", ".join(part for part in parts if part)
