"""The head of a report: what a run is, what it was trained on and what came of it, in few lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tallyformer.artifacts.stages import TRAINING_STAGES
from tallyformer.evaluation.run_data import RunData
from tallyformer.evaluation.statistics import Proportion
from tallyformer.evaluation.tables import (
    duration,
    fixed,
    interval_text,
    share_text,
    signed_percent,
)

MOST_SOURCES = 4
"""Sources that a line names; the smaller ones are counted."""


@dataclass(frozen=True)
class Card:
    """A run's name, what came of it, and what it is."""

    name: str
    description: str
    findings: list[tuple[str, str]]
    facts: list[tuple[str, str]]


def run_card(run: RunData) -> Card:
    """All lines that are known of a run."""
    findings = [
        ("trained on", _trained_on(run)),
        ("pretraining", _reached(run, "pretrain")),
        ("teacher", _reached(run, "teacher")),
        ("distillation", _distillation(run)),
        ("fine-tuning", _fine_tuning(run)),
        ("facts", _accuracy(run, "facts")),
        ("arithmetic", _accuracy(run, "arithmetic")),
        ("cost", _cost(run)),
    ]
    facts = [
        ("recipe", str(run.recipe.get("name", ""))),
        ("model", _model_text(run)),
        ("machine", _machine_text(run.results.get("machine", {}))),
        ("seed", str(run.recipe.get("seed", ""))),
        ("made", _made(run)),
    ]
    return Card(
        run.name,
        str(run.recipe.get("description", "")),
        [line for line in findings if line[1]],
        [line for line in facts if line[1]],
    )


def _trained_on(run: RunData) -> str:
    texts = run.metrics("prepare").get("sources", {})
    pairs = run.metrics("sft").get("pairs", {})
    parts = (
        _sources("tokens of text", {n: counts["tokens"]["train"] for n, counts in texts.items()}),
        _sources("questions with answers", {n: counts["train"] for n, counts in pairs.items()}),
    )
    return "; ".join(part for part in parts if part)


def _sources(unit: str, sizes: Mapping[str, int]) -> str:
    """217,790 tokens of text (questions 110,146, primer 43,912)."""
    if not sizes:
        return ""
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:MOST_SOURCES]
    named = [f"{name} {size:,}" for name, size in largest]
    if len(sizes) > MOST_SOURCES:
        named.append(f"{len(sizes) - MOST_SOURCES} more")
    return f"{sum(sizes.values()):,} {unit} ({', '.join(named)})"


def _reached(run: RunData, stage: str) -> str:
    metrics = run.metrics(stage)
    perplexity = metrics.get("validation_perplexity")
    if perplexity is None:
        return ""
    size = metrics.get("parameters")
    of = f"; {size:,} parameters" if size else ""
    return f"perplexity {fixed(2)(perplexity)} on validation text{of}"


def _distillation(run: RunData) -> str:
    metrics = run.metrics("distill")
    before = metrics.get("validation_perplexity_before")
    if before is not None and metrics.get("best_phase") == 0:
        phases = ", ".join(map(fixed(2), metrics.get("validation_perplexity_after_phases", ())))
        after = f" (after its phases: {phases})" if phases else ""
        return f"did not help: the student was kept at perplexity {fixed(2)(before)}{after}"
    return _change(before, metrics.get("validation_perplexity"), "validation text")


def _fine_tuning(run: RunData) -> str:
    found = {row["when"]: row.get("perplexity") for row in run.results.get("responses", ())}
    metrics = run.metrics("sft")
    return _change(
        found.get("before sft", metrics.get("response_perplexity_before")),
        found.get("after sft", metrics.get("response_perplexity")),
        "held-out answers",
    )


def _change(before: float | None, after: float | None, of: str) -> str:
    if not (before and after):
        return ""
    verdict = "helped" if after < before else "did not help"
    return (
        f"{verdict}: perplexity {fixed(2)(before)} before, {fixed(2)(after)} after "
        f"({signed_percent(before, after)}) on {of}"
    )


def _accuracy(run: RunData, section: str) -> str:
    answers = run.results.get(section, {}).get("answers", [])
    if not answers:
        return ""
    found = Proportion(sum(bool(a["right"]) for a in answers), len(answers))
    return (
        f"{share_text(found.share)} right, {found.right} of {found.asked} held-out questions "
        f"(95% interval {interval_text(found.interval)})"
    )


def _cost(run: RunData) -> str:
    trained = {stage: m for stage in TRAINING_STAGES if (m := run.metrics(stage))}
    seconds = sum(metrics.get("wall_seconds", 0) for metrics in trained.values())
    if not seconds:
        return ""
    tokens = sum(metrics.get("tokens", 0) for metrics in trained.values())
    peaks = {stage: metrics.get("peak_memory_mb", 0) for stage, metrics in trained.items()}
    highest = max(peaks, key=lambda stage: peaks[stage])
    memory = f", at most {fixed(0)(peaks[highest])} MB of memory (in {highest})"
    return f"{duration(seconds)} of training on {tokens:,} tokens{memory if peaks[highest] else ''}"


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
