"""How long each training of a recipe is: steps, tokens, FLOPs and epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tallyformer.config import Recipe
from tallyformer.config.model import ModelSection
from tallyformer.config.training import TrainSection
from tallyformer.data.conversations import ConversationBatches, encode_pair
from tallyformer.data.joining import training_conversations
from tallyformer.data.mixture import Epoch
from tallyformer.data.pairs import split_pairs
from tallyformer.data.replay import batches_with_replay
from tallyformer.data.shards import id_type
from tallyformer.model.flops import (
    activation_bytes,
    count_lora_parameters,
    count_parameters,
    flops_per_token,
    lora_flops_per_token,
)
from tallyformer.planning.planned import PlannedTraining
from tallyformer.preflight.foreseen import SourceSize
from tallyformer.runs.weights import model_config
from tallyformer.tokenizer import Tokenizer

_READ_AROUND = 1 << 16
"""Bytes of a file that the system maps around one that is read."""


def planned_trainings(
    recipe: Recipe,
    sources: Sequence[SourceSize],
    vocabulary: int,
    tokenizer: Tokenizer | None,
) -> Iterator[PlannedTraining]:
    """Every call of the training loop that the recipe asks for, in order.

    Args:
        sources: sizes of the text sources.
        vocabulary: number of ids.
        tokenizer: the run's, or one like it; None if it or the pairs are not there, so that the
            length of fine-tuning is unknown unless the recipe gives its steps.

    Raises:
        DataError: a source that takes part has no whole sequence, or there are no pairs.
    """
    texts = _Texts(recipe, sources, vocabulary)
    yield texts.training("pretrain", recipe.model, recipe.pretrain, recipe.pretrain.weights)
    teacher = recipe.teacher
    if teacher and teacher.model and teacher.train:
        yield texts.training("teacher", teacher.model, teacher.train, teacher.train.weights)
    if recipe.distill:
        known = teacher.model if teacher else None
        for part, phase in enumerate(recipe.distill.phases):
            yield texts.training(
                "distill", recipe.model, phase, recipe.distill.weights, part=part, teacher=known
            )
    if recipe.sft:
        yield _sft(recipe, vocabulary, tokenizer)


class _Texts:
    """Trainings on the shards."""

    def __init__(self, recipe: Recipe, sources: Sequence[SourceSize], vocabulary: int) -> None:
        self._sources = sources
        self._vocabulary = vocabulary
        given = {s.name: s.weight for s in recipe.prepare.sources if s.weight is not None}
        self._weights = given or None

    def training(
        self,
        stage: str,
        model: ModelSection,
        section: TrainSection,
        weights: Mapping[str, float] | None,
        *,
        part: int = 0,
        teacher: ModelSection | None = None,
    ) -> PlannedTraining:
        shape, context = model_config(model, self._vocabulary), model.max_position_embeddings
        epoch = self._epoch(weights or self._weights, context)
        batches = math.ceil(epoch.length / section.micro_batch) if epoch else None
        steps = _steps(section, batches)
        rows = _rows(section, steps)
        of_teacher, teacher_parameters = 0.0, 0
        if teacher:
            teacher_shape = model_config(teacher, self._vocabulary)
            of_teacher = flops_per_token(teacher_shape, context, backward=False)
            teacher_parameters = count_parameters(teacher_shape)
        return PlannedTraining(
            stage=stage,
            part=part,
            section=section,
            parameters=count_parameters(shape),
            trained_parameters=count_parameters(shape),
            teacher_parameters=teacher_parameters,
            context=context,
            activation_bytes=activation_bytes(shape),
            steps=steps,
            tokens=None if rows is None else rows * context,
            validation_tokens=self._validation_tokens(section),
            flops_per_token=flops_per_token(shape, context),
            teacher_flops_per_token=of_teacher,
            epochs_by_source=epoch.passes(rows) if epoch and rows is not None else {},
            mapped_mb=self._mapped_mb(epoch, rows),
        )

    def _epoch(self, weights: Mapping[str, float] | None, context: int) -> Epoch | None:
        """As the training will have it; None if the size of a source is unknown."""
        taking_part = [s for s in self._sources if weights is None or weights.get(s.name)]
        tokens = {s.name: s.tokens for s in taking_part if s.tokens is not None}
        return Epoch.of(tokens, context, weights) if len(tokens) == len(taking_part) else None

    def _validation_tokens(self, section: TrainSection) -> int:
        there = [s.validation_tokens for s in self._sources if s.validation_tokens is not None]
        return min(section.evaluation_tokens, sum(there) or section.evaluation_tokens)

    def _mapped_mb(self, epoch: Epoch | None, rows: int | None) -> float:
        shares = epoch.shares if epoch else {}
        tokens = sum(s.tokens or 0 for s in self._sources if s.name in shares)
        whole = tokens * id_type(self._vocabulary).itemsize
        return min(whole, (rows or 0) * _READ_AROUND) / 1e6


def _sft(recipe: Recipe, vocabulary: int, tokenizer: Tokenizer | None) -> PlannedTraining:
    section, context = recipe.sft, recipe.model.max_position_embeddings
    assert section is not None
    batches, held_out = (
        _pairs(recipe, tokenizer) if tokenizer else (None, section.evaluation_tokens)
    )
    steps = _steps(section, batches)
    rows = _rows(section, steps)
    shape = model_config(recipe.model, vocabulary)
    lora: dict[str, Any] = {
        "rank": section.lora.r,
        "target_modules": section.lora.target_modules,
        "modules_to_save": section.lora.modules_to_save,
    }
    return PlannedTraining(
        stage="sft",
        section=section,
        parameters=count_parameters(shape),
        trained_parameters=count_lora_parameters(shape, **lora),
        context=context,
        activation_bytes=activation_bytes(shape),
        steps=steps,
        tokens=None if rows is None else rows * context,
        validation_tokens=min(section.evaluation_tokens, held_out),
        flops_per_token=lora_flops_per_token(shape, context, **lora),
        epochs_by_source={}
        if batches is None
        else {s.name: s.repeat * _passes(section, batches) for s in section.sources},
    )


def _pairs(recipe: Recipe, tokenizer: Tokenizer) -> tuple[int, int]:
    """Batches of an epoch, and tokens that are held out."""
    section, context = recipe.sft, recipe.model.max_position_embeddings
    assert section is not None
    pairs = split_pairs(
        section.sources,
        data_root=recipe.data_root,
        validation_fraction=section.validation_fraction,
        seed=recipe.seed,
    )
    train = training_conversations(
        tokenizer, pairs.train, context=context, most=section.join_pairs, seed=recipe.seed
    )
    validation = [encode_pair(tokenizer, pair, context) for pair in pairs.validation]
    of_conversations = ConversationBatches(
        train, context=context, batch_size=1, seed=recipe.seed, pad_id=tokenizer.pad_id
    ).batches_per_epoch
    batches = batches_with_replay(of_conversations, section.replay, section.micro_batch)
    return batches, sum(conversation.positions for conversation in validation)


def _steps(section: TrainSection, batches_per_epoch: int | None) -> int | None:
    """As `TrainingJob.steps`."""
    if section.steps is not None:
        return section.steps
    if batches_per_epoch is None:
        return None
    assert section.epochs is not None
    batches = section.epochs * batches_per_epoch
    return max(1, math.ceil(batches / section.gradient_accumulation))


def _rows(section: TrainSection, steps: int | None) -> int | None:
    """Sequences that are read in this many steps."""
    if steps is None:
        return None
    return steps * section.gradient_accumulation * section.micro_batch


def _passes(section: TrainSection, batches_per_epoch: int) -> float:
    if section.epochs is not None:
        return section.epochs
    assert section.steps is not None
    return section.steps * section.gradient_accumulation / batches_per_epoch
