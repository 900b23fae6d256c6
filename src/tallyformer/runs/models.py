"""The models of a run: which stage made each, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass

from tallyformer.artifacts.run_folder import BEST, MERGED, RunFolder
from tallyformer.config import Recipe
from tallyformer.runs.teacher import teacher_fingerprint, teacher_source


@dataclass(frozen=True)
class RunModel:
    """A finished model.

    Attributes:
        stage: the stage that made it, or "teacher" for a ready teacher.
        source: its Hugging Face folder, or a ready teacher's hub name.
        shown: the same as a reader of the run knows it: relative to the run.
        result: of the stage's manifest, or the fingerprint of a ready teacher.
    """

    stage: str
    source: str
    shown: str
    result: str


def models_of(recipe: Recipe, folder: RunFolder) -> list[RunModel]:
    """The run's models in the order in which they are made, its teacher among them.

    Raises:
        ArtifactError: a stage of the recipe is not finished, or a file of it has been altered.
    """
    models = [_model(folder, "pretrain")]
    if recipe.teacher and recipe.teacher.model:
        models.append(_model(folder, "teacher"))
    elif recipe.teacher and recipe.teacher.source and recipe.distill:
        source = teacher_source(recipe, folder)
        fingerprint = teacher_fingerprint(recipe, folder)
        models.append(RunModel("teacher", source, recipe.teacher.source, fingerprint))
    if recipe.distill:
        models.append(_model(folder, "distill"))
    if recipe.sft:
        models.append(_model(folder, "merge"))
    return models


def final_model(recipe: Recipe, folder: RunFolder) -> RunModel:
    """The model that a run is made for: merged, else distilled, else pretrained.

    Raises:
        ArtifactError: its stage is not finished, or a file of it has been altered.
    """
    return _model(folder, "merge" if recipe.sft else "distill" if recipe.distill else "pretrain")


def _model(folder: RunFolder, stage: str) -> RunModel:
    manifest = folder.manifest(stage, check=True)
    place = folder.stage(stage) / (MERGED if stage == "merge" else BEST)
    shown = place.relative_to(folder.path).as_posix()
    return RunModel(stage, str(place), shown, manifest.result)
