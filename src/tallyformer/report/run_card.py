"""The head of a report: what a run is, what it was trained on and what came of it, in few lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallyformer.artifacts.stages import TRAINING_STAGES
from tallyformer.evaluation.statistics import ENOUGH, Proportion
from tallyformer.report.html import Card
from tallyformer.report.run_data import RunData
from tallyformer.report.tables import (
    duration,
    fixed,
    interval_text,
    share_text,
)
from tallyformer.report.verdicts import (
    NO_CONTROL,
    TOO_FEW,
    change_of,
    judged,
    perplexity_change,
    verdict,
)

MOST_SOURCES = 4
"""Sources that a line names; the smaller ones are counted."""
LITTLE_TEXT = 2000
"""Tokens of validation text below which its perplexity is called a rough figure."""

_NOTHING = "There is no recipe in this folder, and no stage has finished."


def run_card(run: RunData) -> Card:
    """All lines that are known of a run."""
    findings = [
        ("trained on", _trained_on(run)),
        ("pretraining", _reached(run, "pretrain")),
        ("teacher", _reached(run, "teacher")),
        ("distillation", _distillation(run)),
        ("fine-tuning", _fine_tuning(run)),
        ("", _texts_after_tuning(run)),
        ("facts", _accuracy(run, "facts", "new wordings of trained questions")),
        ("manners", _accuracy(run, "manners", "greetings, off-topic questions, follow-ups")),
        ("arithmetic", _accuracy(run, "arithmetic", "worked examples with new numbers")),
        ("cost", _cost(run)),
    ]
    facts = [
        ("recipe", str(run.recipe.get("name", ""))),
        ("model", _model_text(run)),
        ("machine", _machine_text(run.results.get("machine", {}))),
        ("seed", str(run.recipe.get("seed", ""))),
        ("made", _made(run)),
    ]
    known = [[line for line in lines if line[1]] for lines in (findings, facts)]
    description = str(run.recipe.get("description", ""))
    return Card(run.name, description or ("" if any(known) else _NOTHING), *known)


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
    return f"perplexity {fixed(2)(perplexity)} on validation text{_if_little(run)}{of}"


def _if_little(run: RunData) -> str:
    """A warning where the validation text is too short for its perplexity to mean much."""
    total: Mapping[str, Any] = run.metrics("prepare").get("total", {})
    tokens = total.get("tokens", {}).get("validation")
    if tokens is None or tokens >= LITTLE_TEXT:
        return ""
    return f" (only {tokens:,} tokens of it, so a rough figure)"


def _distillation(run: RunData) -> str:
    metrics = run.metrics("distill")
    before, after = (
        metrics.get("validation_perplexity_before"),
        metrics.get("validation_perplexity"),
    )
    if before is None or after is None:
        return ""
    if metrics.get("best_phase") == 0:
        phases = ", ".join(map(fixed(2), metrics.get("validation_perplexity_after_phases", ())))
        found = f" (after its phases: {phases})" if phases else ""
        return f"no phase lowered the perplexity of {fixed(2)(before)}{found}; the student was kept"
    return f"{_before_and_after(before, after)} on validation text, {NO_CONTROL}"


def _fine_tuning(run: RunData) -> str:
    found = {row["when"]: row for row in run.results.get("responses", ())}
    metrics = run.metrics("sft")
    row = found.get("after sft", {"passages": _held_out(metrics)})
    before = found.get("before sft", {}).get(
        "perplexity", metrics.get("response_perplexity_before")
    )
    after = row.get("perplexity", metrics.get("response_perplexity"))
    if not (before and after):
        return ""
    return _before_and_after(before, after) + judged(row, "held-out answers")


def _held_out(metrics: Mapping[str, Any]) -> int | None:
    pairs: Mapping[str, Any] = metrics.get("pairs", {})
    counts = [of_source.get("validation") for of_source in pairs.values()]
    return sum(counts) if counts and None not in counts else None


def _texts_after_tuning(run: RunData) -> str:
    """What fine-tuning did to the texts that pretraining taught."""
    parts = [
        f"{row['domain']} {perplexity_change(change.value)}"
        + ("" if verdict(row) in ("lower", "higher") else f" ({verdict(row)})")
        for row in run.results.get("perplexity", ())
        if row["model"] == "merge" and (change := change_of(row))
    ]
    return f"change of the texts' perplexity: {', '.join(parts)}" if parts else ""


def _before_and_after(before: float, after: float) -> str:
    return f"perplexity {fixed(2)(before)} before, {fixed(2)(after)} after"


def _accuracy(run: RunData, section: str, asked: str) -> str:
    answers = run.results.get(section, {}).get("answers", [])
    if not answers:
        return ""
    found = Proportion(sum(bool(a["right"]) for a in answers), len(answers))
    sure = f" (95% interval {interval_text(found.interval)})"
    return (
        f"{share_text(found.share)} right, {found.right} of {found.asked} {asked}"
        f"{f': {TOO_FEW}' if found.asked < ENOUGH else sure}"
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
