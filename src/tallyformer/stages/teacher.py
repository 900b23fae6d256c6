"""The recipe's own teacher: pretraining of a larger model. Leaves `teacher/best`."""

from __future__ import annotations

from tallyformer.artifacts.manifest import Manifest
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import UsageError
from tallyformer.stages.pretrain import train_from_scratch


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Train `teacher.model`, or return at once if that has been done.

    Raises:
        UsageError: the recipe names a ready teacher (`teacher.source`), or none.
        ArtifactError, Interrupted, TrainingError, CheckpointError: as in `pretrain`.
    """
    teacher = recipe.teacher
    if teacher is None or teacher.model is None or teacher.train is None:
        raise UsageError(
            f"{recipe.name}: the recipe has no teacher.model to train. Leave this stage out, or "
            "add teacher.model and teacher.train"
        )
    return train_from_scratch(
        recipe, folder, "teacher", teacher.model, teacher.train, resume=resume
    )
