"""The models of a run: which stage made each, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tallyformer.artifacts.run_folder import BEST, RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import ArtifactError


@dataclass(frozen=True)
class RunModel:
    """A finished model.

    Attributes:
        stage: the stage that made it.
        folder: its Hugging Face folder.
        fingerprint: of the stage's manifest.
    """

    stage: str
    folder: Path
    fingerprint: str


def models_of(recipe: Recipe, folder: RunFolder) -> list[RunModel]:
    """The run's models in the order in which they are made; the last is the final one.

    Raises:
        ArtifactError: a stage of the recipe is not finished, or holds no model.
    """
    stages = ["pretrain"]
    if recipe.teacher and recipe.teacher.model:
        stages.append("teacher")
    if recipe.distill:
        stages.append("distill")
    if recipe.sft:
        stages.append("merge")
    return [_model(folder, stage) for stage in stages]


def final_model(recipe: Recipe, folder: RunFolder) -> RunModel:
    """The model that a run is made for: merged, else distilled, else pretrained.

    Raises:
        ArtifactError: its stage is not finished, or holds no model.
    """
    stage = "merge" if recipe.sft else "distill" if recipe.distill else "pretrain"
    return _model(folder, stage)


def _model(folder: RunFolder, stage: str) -> RunModel:
    manifest, place = folder.manifest(stage), folder.stage(stage)
    for candidate in (place / BEST, place / "merged", place):
        if (candidate / "config.json").is_file():
            return RunModel(stage, candidate, manifest.fingerprint)
    raise ArtifactError(
        f"{place}: holds no model. Delete it and make it again: {folder.command(stage)}"
    )
