"""What a report reads of a run; whatever a run does not have is empty, never an error."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tallyformer.artifacts.json_files import read_checked_json, read_json
from tallyformer.artifacts.manifest import (
    FORMAT,
    MANIFEST,
    UNCHECKED_FORMAT,
    Manifest,
    check_file,
    read_manifest,
)
from tallyformer.artifacts.run_folder import METRICS, RECIPE, RESULTS, SAMPLES, RunFolder
from tallyformer.artifacts.stages import STAGES, TRAINING_STAGES
from tallyformer.config.plain_yaml import read_plain_yaml
from tallyformer.config.written_recipe import check_checksum
from tallyformer.errors import ArtifactError
from tallyformer.report.results_schema import check_recipe_shape, check_results
from tallyformer.training.metrics import read_metrics
from tallyformer.training.sample_lines import WrittenSample, read_written_samples


@dataclass(frozen=True)
class Curves:
    """The metrics and samples of one run of the training loop.

    Attributes:
        name: the stage, with the phase where a stage has several: "distill, phase 1".
        train, validation: lines of metrics, in order of their steps.
        written: what the model wrote at its validations, in order of their steps.
    """

    name: str
    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    written: Sequence[WrittenSample] = ()


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
        raise ArtifactError(f"{run.path}: no such run. Give the folder that a run was written to")
    if os.path.lexists(run.path / MANIFEST):
        raise ArtifactError(
            f"{run.path}: is the folder of a stage. Give its run, {run.path.resolve().parent}"
        )
    text = _text(run.path / RECIPE)
    manifests = {stage: _manifest(run, stage) for stage in STAGES if run.is_finished(stage)}
    evaluated = manifests.get("evaluate")
    return RunData(
        name=name,
        recipe=_recipe(run, text),
        recipe_text=text,
        manifests=manifests,
        curves=tuple(c for stage in TRAINING_STAGES for c in _curves(run.stage(stage), stage)),
        results=_results(run, evaluated.format if evaluated else FORMAT),
    )


def _manifest(run: RunFolder, stage: str) -> Manifest:
    """A stage's manifest; the records that a report shows are compared with it."""
    folder, made_by = run.stage(stage), run.command(stage)
    manifest = read_manifest(folder, made_by=made_by)
    for name, entry in manifest.files.items():
        if name in (RESULTS, *manifest.records):
            check_file(folder / name, entry, fix=f"Delete {folder} and make it again: {made_by}")
    return manifest


def _curves(folder: Path, stage: str) -> list[Curves]:
    found = []
    for file in sorted(folder.rglob(METRICS), key=lambda f: _natural(f.parent)):
        phase = " ".join(file.parent.relative_to(folder).parts).replace("-", " ")
        lines = read_metrics(file)
        kinds = {k: [line for line in lines if line.get("kind") == k] for k in _KINDS}
        name = f"{stage}, {phase}" if phase else stage
        written = read_written_samples(file.with_name(SAMPLES))
        found.append(Curves(name, kinds["train"], kinds["validation"], written))
    return found


_KINDS = ("train", "validation")


def _natural(folder: Path) -> tuple[int, str]:
    """phase-2 before phase-10."""
    digits = "".join(c for c in folder.name if c.isdigit())
    return int(digits or 0), folder.name


def _recipe(run: RunFolder, text: str) -> dict[str, Any]:
    path = run.path / RECIPE
    try:
        check_checksum(text)
        values: dict[str, Any] = read_plain_yaml(text) or {}
        check_recipe_shape(values)
        return values
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(
            f"{path}: damaged ({reason}). Delete it and type the run's own command again: "
            "finished work is kept"
        ) from None


def _results(run: RunFolder, format: int) -> dict[str, Any]:
    path = run.stage("evaluate") / RESULTS
    if not os.path.lexists(path):
        return {}
    fix = f"Delete {path.parent} and make it again: {run.command('evaluate')}"
    # An earlier version wrote results without their checksum.
    read = read_json if format == UNCHECKED_FORMAT else read_checked_json
    try:
        values = read(path, fix=fix)
        check_results(values)
        return values
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged ({error}). {fix}") from None


def _text(path: Path) -> str:
    """A file's text, "" if it is not there; bytes that are not UTF-8 are shown as such."""
    return path.read_text(encoding="utf-8", errors="backslashreplace") if path.is_file() else ""
