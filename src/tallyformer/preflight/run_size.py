"""How large a run is, counted in moments before it begins: only small data is read."""

from __future__ import annotations

import contextlib
import filecmp
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.config.data import PairSource, TextSource
from tallyformer.config.training import TrainSection
from tallyformer.data.cleaning import Cleaning, clean_rows
from tallyformer.data.files import find_files
from tallyformer.data.pairs import split_pairs
from tallyformer.data.sources import pair_source, text_source
from tallyformer.errors import TallyFormerError
from tallyformer.model.flops import count_parameters
from tallyformer.preflight.advice import (
    BYTES_PER_TOKEN,
    Advice,
    RunSize,
    TrainingSize,
    advice_on,
)
from tallyformer.preflight.expected import WHOLE

SMALL = 16_000_000
"""Bytes of files, as they lie on the disk, above which no advice can be due."""
_CONTROL_TOKENS = 3
"""Of a pair: user, assistant, end of text."""
_GPT2_IDS = 50_260
"""Taken for the size of a ready vocabulary, which is not opened here."""


def advice_before(recipe: Recipe, folder: RunFolder, stages: Sequence[str]) -> list[Advice]:
    """What should be known before some stages run. Stages that are finished get no advice.

    What cannot be read is left to the stage that needs it, which says why.
    """
    ahead = [stage for stage in stages if not folder.is_finished(stage)]
    size = size_of(recipe, folder, pairs="sft" in ahead)
    return [advice for advice in advice_on(size) if advice.stage in ahead]


def size_of(recipe: Recipe, folder: RunFolder, *, pairs: bool = True) -> RunSize:
    """Count the run's data.

    Args:
        folder: its finished stages are asked first.
        pairs: read those of fine-tuning.
    """
    tokens, validation_tokens = _tokens(recipe, folder)
    learnt = recipe.tokenizer.vocab_size if recipe.tokenizer.kind == "train" else None
    counted = _pairs(recipe) if pairs else None
    trainings = list(_trainings(recipe, tokens))
    if recipe.sft and (recipe.sft.steps or counted):
        positions = round(counted[2] / (1 - recipe.sft.replay)) if counted else 0
        context = recipe.model.max_position_embeddings
        trainings.append(_training("sft", "sft", recipe.sft, positions, context))
    return RunSize(
        parameters=_parameters(recipe),
        learnt_ids=learnt,
        tokens=tokens,
        validation_tokens=validation_tokens,
        text_fraction=recipe.prepare.validation_fraction,
        trainings=trainings,
        pairs=counted and counted[0],
        held_out_pairs=counted and counted[1],
        pair_fraction=recipe.sft.validation_fraction if recipe.sft else 0.1,
        read_twice=_read_twice(recipe),
    )


def _read_twice(recipe: Recipe) -> list[str]:
    """Files that are read as text and as pairs, by whatever names; a copy is the same file."""
    texts, pairs = (
        [found for section in sections for found in _files(section, recipe.data_root)]
        for sections in (recipe.prepare.sources, recipe.sft.sources if recipe.sft else ())
    )
    places = {(found.st_dev, found.st_ino) for _, found in texts}
    by_size: dict[int, list[Path]] = {}
    for text, found in texts:
        by_size.setdefault(found.st_size, []).append(text)
    return sorted(
        str(file)
        for file, found in pairs
        if (found.st_dev, found.st_ino) in places
        or (found.st_size <= WHOLE and any(_equal(file, t) for t in by_size.get(found.st_size, ())))
    )


def _equal(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return filecmp.cmp(one, other, shallow=False)
    return False


def _files(section: TextSource | PairSource, data_root: str) -> list[tuple[Path, os.stat_result]]:
    """A section's files; none where some are missing, which others say."""
    with contextlib.suppress(TallyFormerError, OSError):
        files = find_files(section.paths, data_root, section.name) if section.paths else ()
        return [(file, file.stat()) for file in files]
    return []


def _tokens(recipe: Recipe, folder: RunFolder) -> tuple[int | None, int | None]:
    """Tokens of text by split; unknown where there is too much to read it all."""
    with contextlib.suppress(TallyFormerError):
        if folder.is_finished("prepare"):
            tokens: dict[str, int] = folder.manifest("prepare").metrics["total"]["tokens"]
            return tokens["train"], tokens["validation"]
        size = _text_bytes(recipe)
        if size is not None:
            fraction = recipe.prepare.validation_fraction
            whole = size / BYTES_PER_TOKEN
            return round(whole * (1 - fraction)), round(whole * fraction)
    return None, None


def _text_bytes(recipe: Recipe) -> int | None:
    """Bytes of text that pass the filters, before deduplication; None if there is much."""
    cleaning, total = Cleaning.of(recipe.prepare, recipe.seed), 0
    for section in recipe.prepare.sources:
        source = text_source(
            section, data_root=recipe.data_root, seed=recipe.seed, max_chars=cleaning.max_chars
        )
        if _is_large(section, source.sizes):
            return None
        field = source.required[0]
        for _, text in clean_rows(source.rows(), source.files, field, cleaning, Counter()):
            total += len(text.encode())
    return total


def _is_large(section: TextSource | PairSource, sizes: Sequence[int] | None) -> bool:
    """Whether a source is too large to be read; a corpus that ships never is."""
    return not section.corpus and (sizes is None or sum(sizes) > SMALL)


def _trainings(recipe: Recipe, tokens: int | None) -> Iterator[TrainingSize]:
    """The trainings on texts."""
    context = recipe.model.max_position_embeddings
    sections: list[tuple[str, str, TrainSection, int]] = [
        ("pretrain", "pretrain", recipe.pretrain, context)
    ]
    if recipe.teacher and recipe.teacher.model and recipe.teacher.train:
        its_context = recipe.teacher.model.max_position_embeddings
        sections.append(("teacher", "teacher.train", recipe.teacher.train, its_context))
    for number, phase in enumerate(recipe.distill.phases if recipe.distill else ()):
        sections.append(("distill", f"distill.phases.{number}", phase, context))
    for stage, key, section, length in sections:
        if section.steps or tokens is not None:
            yield _training(stage, key, section, tokens or 0, length)


def _training(
    stage: str, key: str, section: TrainSection, tokens: int, context: int
) -> TrainingSize:
    if section.steps is not None:
        return TrainingSize(stage, key, section, section.steps)
    assert section.epochs is not None
    batches = math.ceil(tokens / context / section.micro_batch)
    steps = math.ceil(section.epochs * batches / section.gradient_accumulation)
    return TrainingSize(stage, key, section, max(1, steps))


def _pairs(recipe: Recipe) -> tuple[int, int, int] | None:
    """Training pairs, held-out pairs, and about how many positions the first take; None if there
    are many."""
    if recipe.sft is None:
        return None
    with contextlib.suppress(TallyFormerError):
        for section in recipe.sft.sources:
            source = pair_source(section, data_root=recipe.data_root, seed=recipe.seed)
            if _is_large(section, source.sizes):
                return None
        split = split_pairs(
            recipe.sft.sources,
            data_root=recipe.data_root,
            validation_fraction=recipe.sft.validation_fraction,
            seed=recipe.seed,
        )
        texts = (len("".join(pair.turns).encode()) for pair in split.train)
        positions = sum(size / BYTES_PER_TOKEN + _CONTROL_TOKENS for size in texts)
        # Repeats of a pair are no other pairs.
        return len({pair.id for pair in split.train}), len(split.validation), round(positions)
    return None


def _parameters(recipe: Recipe) -> int:
    shape: dict[str, Any] = recipe.model.model_dump()
    ids = recipe.tokenizer.vocab_size if recipe.tokenizer.kind == "train" else _GPT2_IDS
    return count_parameters({**shape, "vocab_size": ids, "norm_bias": False})
