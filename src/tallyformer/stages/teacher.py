"""The recipe's own teacher: pretraining of a larger model. Leaves `teacher/best`."""

from __future__ import annotations

from tallyformer.artifacts.manifest import Manifest
from tallyformer.artifacts.run_folder import RunFolder, StageWork
from tallyformer.config import Recipe
from tallyformer.config.model import ModelSection
from tallyformer.config.training import PretrainSection
from tallyformer.errors import UsageError
from tallyformer.stages.pretrain import train_from_scratch, work_from_scratch


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Train `teacher.model`, or return at once if that has been done.

    Raises:
        UsageError: the recipe names a ready teacher (`teacher.source`), or none.
        ArtifactError, Interrupted, TrainingError, CheckpointError: as in `pretrain`.
    """
    work = work_of(recipe, folder, resume=resume)
    return train_from_scratch(recipe, work, *_sections(recipe))


def work_of(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> StageWork:
    """What decides the teacher's weights."""
    return work_from_scratch(recipe, folder, "teacher", *_sections(recipe), resume=resume)


def _sections(recipe: Recipe) -> tuple[ModelSection, PretrainSection]:
    teacher = recipe.teacher
    if teacher is None or teacher.model is None or teacher.train is None:
        raise UsageError(
            f"{recipe.name}: the recipe has no teacher.model to train. Leave this stage out, or "
            "add teacher.model and teacher.train"
        )
    return teacher.model, teacher.train
