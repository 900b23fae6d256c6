"""Stage export: the final Hugging Face folder, checked by a fresh process before it is kept."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import atomic_folder
from tallyformer.artifacts.manifest import Manifest, entries_below
from tallyformer.artifacts.run_folder import CLAIM, RunFolder, StageWork
from tallyformer.artifacts.stages import STAGES
from tallyformer.config import Recipe
from tallyformer.export.hf_folder import verify_hf_folder, write_hf_folder
from tallyformer.export.model_card import model_card
from tallyformer.model.loading import DTYPES, load_model
from tallyformer.model.pretrained import quiet_library
from tallyformer.runs.data import load_tokenizer, result_of
from tallyformer.runs.models import RunModel, final_model


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Write the run's final model to `model/`, or return at once if that has been done.

    The folder appears whole, after its logits were found equal to the source's.

    Raises:
        ArtifactError: the source is not finished, the written folder is not the same model, or
            the disk is full.
    """
    source = final_model(recipe, folder)
    work = _work(recipe, folder, source, resume)
    if done := work.already_done():
        return done
    tokenizer = load_tokenizer(folder)
    model = load_model(source.source, dtype="float32")
    dtype = DTYPES[recipe.export.dtype]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with quiet_library(), atomic_folder(work.folder) as written:
        _keep_claim(work, written)
        model_class = write_hf_folder(
            model,
            tokenizer,
            written,
            dtype=dtype,
            card=lambda name: model_card(
                recipe, _metrics(folder), model_class=name, parameters=parameters
            ),
        )
        files = entries_below(written)  # before the check, so that what is signed was checked
        found = verify_hf_folder(model, written, dtype=dtype)
    metrics: dict[str, Any] = {
        "source": source.shown,
        "class": model_class,
        "parameters": parameters,
        "dtype": recipe.export.dtype,
        **asdict(found),
    }
    signed = {work.folder / name: entry for name, entry in files.items() if name != CLAIM}
    return work.finish(metrics=metrics, files=signed)


def work_of(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> StageWork:
    """What decides the final folder."""
    return _work(recipe, folder, final_model(recipe, folder), resume)


def _work(recipe: Recipe, folder: RunFolder, source: RunModel, resume: bool) -> StageWork:
    return StageWork(
        run=folder,
        stage="export",
        config={**recipe.export.model_dump(mode="json"), "name": recipe.name},
        seed=recipe.seed,
        inputs={
            "tokenizer": result_of(folder, "tokenizer"),
            source.stage: source.result,
        },
        resume=resume,
        sections={"name": "name"},
    )


def _keep_claim(work: StageWork, written: Path) -> None:
    """The new folder replaces the claimed one, and stays claimed until its manifest is there."""
    shutil.copy2(work.folder / CLAIM, written / CLAIM)


def _metrics(folder: RunFolder) -> dict[str, Any]:
    return {stage: folder.manifest(stage).metrics for stage in STAGES if folder.is_finished(stage)}
