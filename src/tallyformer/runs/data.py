"""A run's data: its tokenizer, its shards as batches, and what a finished stage records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallyformer.artifacts.manifest import Files, Manifest
from tallyformer.artifacts.run_folder import RunFolder, StageWork, clear
from tallyformer.config.training import TrainSection
from tallyformer.data.batch import BatchSource
from tallyformer.data.packed import PackedBatches, ValidationBatches
from tallyformer.data.shards import Shards, read_shards
from tallyformer.tokenizer import Tokenizer
from tallyformer.training.loop import CHECKPOINTS


def load_tokenizer(folder: RunFolder) -> Tokenizer:
    """The run's tokenizer."""
    folder.manifest("tokenizer")
    return Tokenizer.from_pretrained(folder.stage("tokenizer"))


def load_shards(folder: RunFolder, tokenizer: Tokenizer) -> Shards:
    """The run's prepared shards, with their checksums compared."""
    return read_shards(
        folder.stage("prepare"),
        tokenizer_fingerprint=tokenizer.fingerprint,
        made_by=folder.command("prepare"),
    )


def packed_sources(
    shards: Shards,
    section: TrainSection,
    weights: Mapping[str, float] | None,
    *,
    context: int,
    seed: int,
) -> tuple[BatchSource, BatchSource]:
    """Training and validation batches of a run on the shards."""
    weights = weights or shards.weights
    isolate = not section.attend_across_documents
    train = PackedBatches(
        shards.train,
        context=context,
        batch_size=section.micro_batch,
        seed=seed,
        weights=weights,
        isolate_documents=isolate,
    )
    validation = ValidationBatches(
        shards.validation,
        context=context,
        batch_size=section.micro_batch,
        max_tokens=section.evaluation_tokens,
        weights=weights,
        isolate_documents=isolate,
    )
    return train, validation


def result_of(folder: RunFolder, stage: str) -> str:
    """The `result` of a finished stage whose files are as it left them.

    Raises:
        ArtifactError: it is not finished, or a file has been altered.
    """
    return folder.manifest(stage, check=True).result


def finish(work: StageWork, metrics: Mapping[str, Any], files: Files, records: Files) -> Manifest:
    """Sign a training stage: its weights and metrics as they were written. One checkpoint is kept.

    Raises:
        ArtifactError: a file is gone, or has changed since it was written.
    """
    for previous in work.folder.glob(f"**/{CHECKPOINTS}/previous"):
        clear(previous)
    return work.finish(metrics=metrics, files=files, records=records)
