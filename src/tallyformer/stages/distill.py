"""Distillation: the pretrained student learns from a teacher, phase after phase.

    distill/phase-1/ ...   metrics, checkpoints, best/ of each phase
    distill/best/          the best weights: of a phase, or the student's own

A phase starts from the best weights of the one before it. A student that no phase improves is kept
as it was: `best_phase` is 0 then.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tallyformer.artifacts.atomic import atomic_folder
from tallyformer.artifacts.json_files import read_checked_json, write_checked_json
from tallyformer.artifacts.manifest import Manifest
from tallyformer.artifacts.model_folder import RESULT, check_model_folder
from tallyformer.artifacts.run_folder import BEST, RunFolder, StageWork
from tallyformer.config import Recipe
from tallyformer.config.distill import DistillPhase, DistillSection
from tallyformer.config.training import LOOKED_AT_ONLY
from tallyformer.data.shards import Shards
from tallyformer.errors import UsageError
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.device import choose_device
from tallyformer.model.flops import count_parameters, flops_per_token, head_flops
from tallyformer.runs.data import finish, load_shards, load_tokenizer, packed_sources, result_of
from tallyformer.runs.samples import continuations
from tallyformer.runs.teacher import (
    load_teacher_model,
    shared_ids,
    teacher_fingerprint,
    teacher_revision,
    teacher_source,
)
from tallyformer.runs.weights import earlier_model, save_model
from tallyformer.tokenizer import Tokenizer
from tallyformer.training.distillation import DistillationLoss, DistillationWeights, TargetSource
from tallyformer.training.job import TrainingJob
from tallyformer.training.loop import evaluate_only, train
from tallyformer.training.precision import choose_precision
from tallyformer.training.teacher import Teacher
from tallyformer.training.teacher_cache import TeacherCache
from tallyformer.training.validation import TextLoss

CACHE = "teacher-cache"
_NO_WEIGHT_DEPENDS_ON: Any = {
    "cache_folder": True,
    "phases": {"__all__": set(LOOKED_AT_ONLY)},
}


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Run all phases, or return at once if that has been done.

    Raises:
        UsageError: the recipe has no distill section.
        ArtifactError: the student, the shards or the teacher cannot be used.
        TokenizerError: the teacher's ids mean other bytes.
        Interrupted, TrainingError, CheckpointError: see `training.loop.train`.
    """
    section = _section(recipe)
    work = work_of(recipe, folder, resume=resume)
    if done := work.already_done():
        return done
    return _Distillation(recipe, folder, work, section).to_the_end()


def work_of(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> StageWork:
    """What decides the distilled weights."""
    inputs = {n: result_of(folder, n) for n in ("tokenizer", "prepare", "pretrain")}
    return StageWork(
        run=folder,
        stage="distill",
        config={
            "distill": _section(recipe).model_dump(mode="json", exclude=_NO_WEIGHT_DEPENDS_ON),
            "dropout": recipe.model.dropout,
        },
        seed=recipe.seed,
        inputs={**inputs, "teacher": teacher_fingerprint(recipe, folder)},
        resume=resume,
        sections={"distill": "distill", "dropout": "model.dropout"},
    )


def _section(recipe: Recipe) -> DistillSection:
    if recipe.distill is None:
        raise UsageError(
            f"{recipe.name}: the recipe has no distill section. Leave this stage out, or add one"
        )
    return recipe.distill


@dataclass
class _Distillation:
    """One run of the stage."""

    recipe: Recipe
    folder: RunFolder
    work: StageWork
    section: DistillSection

    def __post_init__(self) -> None:
        self.device = choose_device()
        self.tokenizer: Tokenizer = load_tokenizer(self.folder)
        self.shards: Shards = load_shards(self.folder, self.tokenizer)
        self.context = self.recipe.model.max_position_embeddings
        self.student = self.folder.stage("pretrain") / BEST

    def to_the_end(self) -> Manifest:
        phases: list[dict[str, Any]] = []
        source = None
        candidates = [self.student]
        for number, phase in enumerate(self.section.phases, start=1):
            place = self.work.folder / f"phase-{number}"
            if not os.path.lexists(place / RESULT):
                source = source or self._targets()
                start = candidates[-1]
                write_checked_json(place / RESULT, self._phase(number, phase, start, place, source))
            phases.append(read_checked_json(place / RESULT, fix=self._restart(place)))
            candidates.append(place / BEST)
        # Phases may validate on different amounts of text, so all are measured on the same.
        measured = [self._measure(folder) for folder in candidates]
        best = min(range(len(measured)), key=lambda i: measured[i].mean)
        with atomic_folder(self.work.folder / BEST) as out:
            shutil.copytree(candidates[best], out, dirs_exist_ok=True)
        chosen = phases[best - 1]["files"] if best else self.folder.manifest("pretrain").files
        files = {self.work.folder / name: e for name, e in chosen.items() if _is_of_best(name)}
        records = {
            self.work.folder / f"phase-{number}" / name: entry
            for number, phase in enumerate(phases, start=1)
            for name, entry in phase["records"].items()
        }
        results = [phase["metrics"] for phase in phases]
        return finish(self.work, self._metrics(measured, best, results), files, records)

    def _restart(self, phase: Path) -> str:
        return f"Delete {phase}, then: {self.folder.resume_command('distill')}"

    def _measure(self, model_folder: Path) -> TextLoss:
        """Validation of weights as they lie on the disk."""
        section = self.section.phases[-1]
        _, validation = self._sources(section, self.recipe.seed)
        return evaluate_only(
            self._load(model_folder, None).to(self.device),
            validation,
            device=self.device,
            section=section,
            token_bytes=self.tokenizer.token_bytes(),
            label=f"measure {model_folder.parent.name}",
        )

    def _sources(self, section: DistillPhase, seed: int) -> Any:
        return packed_sources(
            self.shards, section, self.section.weights, context=self.context, seed=seed
        )

    def _load(self, folder: Path, dropout: float | None) -> Any:
        check_model_folder(folder)
        made_by = self.folder.command("pretrain")
        return earlier_model(folder, self.tokenizer, dropout=dropout, made_by=made_by)

    def _phase(
        self, number: int, phase: DistillPhase, start: Path, place: Path, source: TargetSource
    ) -> dict[str, Any]:
        model = self._load(start, phase.dropout).to(self.device)
        # Each phase sees the data in an order of its own, and none in the order of pretraining.
        seed = self.recipe.seed + number
        batches, validation = self._sources(phase, seed)
        weights = DistillationWeights(phase.temperature, phase.alpha, phase.z_loss)
        result = train(
            TrainingJob(
                name=f"distill {number}",
                model=model,
                make_loss=lambda model, compiled: DistillationLoss(
                    model, source, weights, compiled=compiled
                ),
                train=batches,
                validation=validation,
                section=phase,
                folder=place,
                best=place / BEST,
                save_best=lambda best: save_model(
                    model, self.tokenizer, best, dropout=self.recipe.model.dropout
                ),
                seed=seed,
                device=self.device,
                token_bytes=self.tokenizer.token_bytes(),
                flops_per_token=flops_per_token(model.config, self.context, backward=True),
                head_flops=head_flops(model.config),
                resume_command=self.folder.resume_command("distill"),
                restart_command=functools.partial(
                    self.folder.restart_command, "distill", f"distill.phases.{number - 1}"
                ),
                take_samples=continuations(model, self.tokenizer, phase, self.shards),
            )
        )
        return {
            "metrics": result.metrics(),
            "files": _below(place, result.files),
            "records": _below(place, result.records),
        }

    def _targets(self) -> TargetSource:
        """The teacher, or its stored pass."""
        source = teacher_source(self.recipe, self.folder)
        wanted = {phase.precision for phase in self.section.phases}
        names = {choose_precision(w, self.device).name for w in wanted}
        dtype = torch.bfloat16 if names == {"bf16"} else torch.float32
        revision = teacher_revision(self.recipe)
        model = load_teacher_model(source, dtype, self.context, revision).to(self.device)
        vocabulary = self.folder.stage("tokenizer")
        shared = shared_ids(source, model, vocabulary, self.tokenizer, revision)
        teacher = Teacher(model, shared, source)
        if not all(phase.attend_across_documents for phase in self.section.phases):
            teacher.require_isolation()
        if self.section.cache == "off":
            return teacher
        return TeacherCache(
            Path(self.section.cache_folder or self.work.folder / CACHE),
            {
                "shards": self.work.inputs["prepare"],
                "teacher": self.work.inputs["teacher"],
                "precision": sorted(names),
            },
            teacher,
            context=self.context,
            top_k=self.section.cache_top_k,
            temperatures=[phase.temperature for phase in self.section.phases],
        )

    def _metrics(
        self, measured: Sequence[TextLoss], best: int, results: list[dict[str, Any]]
    ) -> dict[str, Any]:
        before, after = measured[0], measured[best]
        on_gpu = [r["peak_gpu_memory_mb"] for r in results]
        return {
            "validation_loss_before": before.mean,
            "validation_perplexity_before": before.values()["perplexity"],
            "validation_loss": after.mean,
            "validation_perplexity": after.values()["perplexity"],
            "validation_bits_per_byte": after.values()["bits_per_byte"],
            "validation_perplexity_after_phases": [
                found.values()["perplexity"] for found in measured[1:]
            ],
            "best_phase": best,
            "steps": sum(r["steps"] for r in results),
            "tokens": sum(r["tokens"] for r in results),
            "wall_seconds": round(sum(r["wall_seconds"] for r in results), 3),
            "peak_memory_mb": max(r["peak_memory_mb"] for r in results),
            "peak_gpu_memory_mb": max((mb for mb in on_gpu if mb is not None), default=None),
            "parameters": count_parameters(
                TallyFormerConfig.from_pretrained(self.work.folder / BEST)
            ),
            "phases": results,
        }


def _is_of_best(name: str) -> bool:
    return name.startswith(f"{BEST}/")


def _below(place: Path, files: Mapping[Path, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {file.relative_to(place).as_posix(): entry for file, entry in files.items()}
