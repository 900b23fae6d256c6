"""Pretraining: next-token prediction from random weights. Leaves `pretrain/best`."""

from __future__ import annotations

import functools

from tallyformer.artifacts.manifest import Manifest
from tallyformer.artifacts.run_folder import BEST, RunFolder, StageWork
from tallyformer.config import Recipe
from tallyformer.config.model import ModelSection
from tallyformer.config.training import LOOKED_AT_ONLY, PretrainSection
from tallyformer.model.device import choose_device
from tallyformer.model.flops import count_parameters, flops_per_token, head_flops
from tallyformer.runs.data import finish, load_shards, load_tokenizer, packed_sources, result_of
from tallyformer.runs.samples import continuations
from tallyformer.runs.weights import new_model, save_model
from tallyformer.training.job import TrainingJob
from tallyformer.training.loop import train
from tallyformer.training.losses import NextTokenLoss

_SECTIONS = {
    "pretrain": {"model": "model", "train": "pretrain"},
    "teacher": {"model": "teacher.model", "train": "teacher.train"},
}
"""What the parts of a stage's configuration are called in a recipe."""


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Train the recipe's model, or return at once if that has been done.

    Raises:
        ArtifactError: the shards or the tokenizer are missing or altered.
        Interrupted, TrainingError, CheckpointError: see `training.loop.train`.
    """
    return train_from_scratch(
        recipe, work_of(recipe, folder, resume=resume), recipe.model, recipe.pretrain
    )


def work_of(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> StageWork:
    """What decides the weights."""
    return work_from_scratch(
        recipe, folder, "pretrain", recipe.model, recipe.pretrain, resume=resume
    )


def work_from_scratch(
    recipe: Recipe,
    folder: RunFolder,
    stage: str,
    model_section: ModelSection,
    section: PretrainSection,
    *,
    resume: bool,
) -> StageWork:
    """What decides the weights of a stage that trains from random ones."""
    return StageWork(
        run=folder,
        stage=stage,
        config={
            "model": model_section.model_dump(mode="json"),
            "train": section.model_dump(mode="json", exclude=set(LOOKED_AT_ONLY)),
        },
        seed=recipe.seed,
        inputs={name: result_of(folder, name) for name in ("tokenizer", "prepare")},
        resume=resume,
        sections=_SECTIONS[stage],
    )


def train_from_scratch(
    recipe: Recipe, work: StageWork, model_section: ModelSection, section: PretrainSection
) -> Manifest:
    """Train a model from random weights, or return at once if that has been done."""
    folder, stage = work.run, work.stage
    if done := work.already_done():
        return done
    tokenizer = load_tokenizer(folder)
    shards = load_shards(folder, tokenizer)
    context = model_section.max_position_embeddings
    batches, validation = packed_sources(
        shards, section, section.weights, context=context, seed=recipe.seed
    )
    device = choose_device()
    model = new_model(model_section, tokenizer, dropout=section.dropout, seed=recipe.seed).to(
        device
    )
    result = train(
        TrainingJob(
            name=stage,
            model=model,
            make_loss=lambda model, compiled: NextTokenLoss(
                model, section.z_loss, compiled=compiled
            ),
            train=batches,
            validation=validation,
            section=section,
            folder=work.folder,
            best=work.folder / BEST,
            save_best=lambda best: save_model(
                model, tokenizer, best, dropout=model_section.dropout
            ),
            seed=recipe.seed,
            device=device,
            token_bytes=tokenizer.token_bytes(),
            flops_per_token=flops_per_token(model.config, context, backward=True),
            head_flops=head_flops(model.config),
            resume_command=folder.resume_command(stage),
            restart_command=functools.partial(
                folder.restart_command, stage, "teacher.train" if stage == "teacher" else stage
            ),
            take_samples=continuations(model, tokenizer, section, shards),
        )
    )
    metrics = {**result.metrics(), "parameters": count_parameters(model.config)}
    return finish(work, metrics, result.files, result.records)
