"""What a report reads of a run; whatever a run does not have is empty, never an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tallyformer.artifacts.manifest import Manifest, read_manifest
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.errors import ArtifactError
from tallyformer.training.metrics import METRICS, read_metrics

TRAINING_STAGES = ("pretrain", "teacher", "distill", "sft")
STAGES = ("tokenizer", "prepare", *TRAINING_STAGES, "merge", "evaluate", "export")
RESULTS = "results.json"
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Curves:
    """The metrics of one run of the training loop.

    Attributes:
        name: the stage, with the phase where a stage has several: "distill, phase 1".
        train, validation: lines of metrics, in order of their steps.
    """

    name: str
    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]


@dataclass(frozen=True)
class RunData:
    """Everything that a report shows of one run."""

    name: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    manifests: Mapping[str, Manifest] = field(default_factory=dict)
    curves: tuple[Curves, ...] = ()
    results: Mapping[str, Any] = field(default_factory=dict)

    def metrics(self, stage: str) -> Mapping[str, Any]:
        """A finished stage's metrics; empty if it is not finished."""
        return self.manifests[stage].metrics if stage in self.manifests else {}


def read_run(run: RunFolder, name: str) -> RunData:
    """Read what is there of a run's folder; `name` is what the report calls it.

    Raises:
        ArtifactError: the folder does not exist, or a file in it is damaged.
    """
    if not run.path.is_dir():
        raise ArtifactError(f"{run.path}: no such run. Make it: tallyformer run --out {run.path}")
    text = _text(run.path / RECIPE)
    return RunData(
        name=name,
        recipe=yaml.safe_load(text) or {},
        recipe_text=text,
        manifests={
            stage: read_manifest(run.stage(stage), made_by=run.command(stage))
            for stage in STAGES
            if run.is_finished(stage)
        },
        curves=tuple(c for stage in TRAINING_STAGES for c in _curves(run.stage(stage), stage)),
        results=_results(run),
    )


def _curves(folder: Path, stage: str) -> list[Curves]:
    found = []
    for file in sorted(folder.rglob(METRICS), key=lambda f: _natural(f.parent)):
        phase = " ".join(file.parent.relative_to(folder).parts).replace("-", " ")
        lines = read_metrics(file)
        kinds = {k: [line for line in lines if line.get("kind") == k] for k in _KINDS}
        found.append(
            Curves(f"{stage}, {phase}" if phase else stage, kinds["train"], kinds["validation"])
        )
    return found


_KINDS = ("train", "validation")


def _natural(folder: Path) -> tuple[int, str]:
    """phase-2 before phase-10."""
    digits = "".join(c for c in folder.name if c.isdigit())
    return int(digits or 0), folder.name


def _results(run: RunFolder) -> dict[str, Any]:
    path = run.stage("evaluate") / RESULTS
    text = _text(path)
    try:
        results = json.loads(text) if text else {}
    except ValueError as error:
        raise ArtifactError(
            f"{path}: damaged ({error}). Delete {path.parent} and make it again: "
            f"{run.command('evaluate')}"
        ) from None
    assert isinstance(results, dict)
    return results


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
