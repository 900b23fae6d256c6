"""What would end a run after hours of training, found out before the first step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.artifacts.stages import STAGES
from tallyformer.config import Recipe
from tallyformer.config.data import PairSource
from tallyformer.config.model import ModelSection
from tallyformer.config.training import TrainSection
from tallyformer.data.files import find_files
from tallyformer.data.mixture import Epoch
from tallyformer.errors import ArtifactError, DataError, TallyFormerError, UsageError
from tallyformer.model.flops import count_parameters
from tallyformer.preflight.foreseen import Foreseen

AFTER_PREPARE = STAGES[STAGES.index("prepare") + 1 :]
_PAIR_BYTES = 64_000_000
"""Files of pairs are read whole up to this size, which takes a few seconds."""
_BEST_BYTES, _CHECKPOINT_BYTES = 4, 12
"""Bytes a parameter, float32: weights; and with AdamW's two moments."""


def check_readiness(
    recipe: Recipe, folder: RunFolder, stages: Sequence[str], known: Foreseen
) -> None:
    """Check all that unfinished stages after `prepare` need and that can be known by now.

    Args:
        stages: which will run; those that are finished are passed over.
        known: vocabulary and sizes, as far as they are known.

    Raises:
        TallyFormerError: something will not work; if several things, all are named.
    """
    todo = [s for s in stages if s in AFTER_PREPARE and not folder.is_finished(s)]
    found: list[TallyFormerError] = []
    for check in (_texts, _pairs, _adapter, _teacher, _questions, _device, _disk):
        for part in check(recipe, folder, todo, known):
            try:
                part()
            except TallyFormerError as error:
                found.append(error)
    raise_all(recipe, found)


def raise_all(recipe: Recipe, found: Sequence[TallyFormerError]) -> None:
    """Raise the one error as it is, or one error that lists all.

    Raises:
        TallyFormerError: there is one.
    """
    lines = list(dict.fromkeys(str(error) for error in found))
    if len(lines) == 1:
        raise found[0]
    if lines:
        kind = UsageError if all(isinstance(e, UsageError) for e in found) else DataError
        listed = "".join(f"\n  - {line}" for line in lines)
        raise kind(f"{recipe.name}: {len(lines)} things stand in the way:{listed}")


_Check = Iterator[Callable[[], object]]


def _texts(recipe: Recipe, folder: RunFolder, todo: Sequence[str], known: Foreseen) -> _Check:
    """Every training on texts has a sequence to train on, and text to validate on."""
    context = recipe.model.max_position_embeddings
    if "pretrain" in todo:
        yield lambda: _check_text(recipe, known, recipe.pretrain.weights, context)
    teacher = recipe.teacher
    if "teacher" in todo and teacher and teacher.model and teacher.train:
        longest, weights = teacher.model.max_position_embeddings, teacher.train.weights
        yield lambda: _check_text(recipe, known, weights, longest)
    distill = recipe.distill
    if "distill" in todo and distill:
        yield lambda: _check_text(recipe, known, distill.weights, context)
    if "sft" in todo and recipe.sft and recipe.sft.replay:
        yield lambda: _check_text(recipe, known, None, context)


def _check_text(
    recipe: Recipe, known: Foreseen, weights: Mapping[str, float] | None, context: int
) -> None:
    given = {s.name: s.weight for s in recipe.prepare.sources if s.weight is not None}
    weights = weights or given or None
    taking_part = [s for s in known.sources if weights is None or weights.get(s.name)]
    counted = {s.name: s.tokens for s in taking_part if s.tokens is not None}
    if len(counted) == len(taking_part) or (weights and counted):
        Epoch.of(counted, context, weights)
    if all(s.validation_tokens is not None and s.validation_tokens < 2 for s in taking_part):
        raise DataError(
            "validation: every source is empty. Give prepare more text: one of two passages, "
            "about 1,000 characters, can be split"
        )


def _pairs(recipe: Recipe, folder: RunFolder, todo: Sequence[str], known: Foreseen) -> _Check:
    """All pairs can be read, and some of them are held out."""
    from tallyformer.data.pairs import check_held_out, split_pairs

    sft = recipe.sft
    if "sft" in todo and sft and all(_is_soon_read(s, recipe.data_root) for s in sft.sources):
        yield lambda: check_held_out(
            split_pairs(
                sft.sources,
                data_root=recipe.data_root,
                validation_fraction=sft.validation_fraction,
                seed=recipe.seed,
            )
        )


def _is_soon_read(source: PairSource, data_root: str) -> bool:
    if source.dataset:
        return False
    files = find_files(source.paths, data_root, source.name) if source.paths else []
    return sum(file.stat().st_size for file in files) <= _PAIR_BYTES


def _adapter(recipe: Recipe, folder: RunFolder, todo: Sequence[str], known: Foreseen) -> _Check:
    """The modules that get an adapter exist."""
    from tallyformer.training.lora import check_lora

    if "sft" in todo and recipe.sft:
        lora = recipe.sft.lora
        yield lambda: check_lora(_without_weights(recipe.model), lora)


def _without_weights(section: ModelSection) -> object:
    import torch

    from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
    from tallyformer.runs.weights import model_config

    no_ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    with torch.device("meta"):
        return TallyFormerForCausalLM(model_config(section, 260, **no_ids))


def _teacher(recipe: Recipe, folder: RunFolder, todo: Sequence[str], known: Foreseen) -> _Check:
    """A ready teacher can be loaded, reads as much at once, and has the same vocabulary."""
    from tallyformer.runs.teacher import check_teacher, teacher_revision, teacher_source

    if "distill" in todo and recipe.teacher and recipe.teacher.source:
        yield lambda: check_teacher(
            teacher_source(recipe, folder),
            recipe.model.max_position_embeddings,
            known.tokenizer,
            teacher_revision(recipe),
        )


def _questions(recipe: Recipe, folder: RunFolder, todo: Sequence[str], known: Foreseen) -> _Check:
    """The questions of the evaluation leave room for an answer."""
    from tallyformer.inference.fitting import fit_messages
    from tallyformer.inference.llm import ANSWER_SHARE

    tokenizer, context = known.tokenizer, recipe.model.max_position_embeddings
    if "evaluate" not in todo or tokenizer is None:
        return

    def fits(prompt: str) -> None:
        messages = [{"role": "user", "content": prompt}]
        try:
            fit_messages(tokenizer, messages, context=context, answer_share=ANSWER_SHARE)
        except UsageError as error:
            raise UsageError(f"evaluate.prompts: {prompt[:40]!r}: {error}") from None

    for prompt in recipe.evaluate.prompts or ("What is a bond?",):
        yield partial(fits, prompt)


def _device(recipe: Recipe, folder: RunFolder, todo: Sequence[str], known: Foreseen) -> _Check:
    """The device computes in the formats and has the tools that the recipe wants."""
    from tallyformer.model.device import choose_device
    from tallyformer.training.compiling import require_compiler
    from tallyformer.training.precision import choose_precision

    device = choose_device()
    for section in _sections(recipe, todo):
        yield partial(choose_precision, section.precision, device)
        if section.compile == "on":
            yield lambda: require_compiler(device, "compile: on", "or set compile: auto")


def _sections(recipe: Recipe, todo: Sequence[str]) -> Iterator[TrainSection]:
    teacher, distill = recipe.teacher, recipe.distill
    if "pretrain" in todo:
        yield recipe.pretrain
    if "teacher" in todo and teacher and teacher.train:
        yield teacher.train
    if "distill" in todo and distill:
        yield from distill.phases
    if "sft" in todo and recipe.sft:
        yield recipe.sft


def _disk(recipe: Recipe, folder: RunFolder, todo: Sequence[str], known: Foreseen) -> _Check:
    """The disk has room for the weights, and for one checkpoint of the largest training."""
    from tallyformer.runs.weights import model_config

    if known.tokenizer is None:
        return
    vocabulary = known.tokenizer.vocab_size
    own = count_parameters(model_config(recipe.model, vocabulary))
    sizes = [own for stage in todo if stage in ("pretrain", "distill", "merge", "export")]
    trained = [own for stage in todo if stage in ("pretrain", "distill")]
    if "teacher" in todo and recipe.teacher and recipe.teacher.model:
        of_teacher = count_parameters(model_config(recipe.teacher.model, vocabulary))
        sizes.append(of_teacher)
        trained.append(of_teacher)
    needed = _BEST_BYTES * sum(sizes) + _CHECKPOINT_BYTES * max(trained, default=0)
    yield lambda: _check_disk(folder.path, needed - sum(_bytes_in(folder.stage(s)) for s in todo))


def _check_disk(path: Path, needed: int) -> None:
    there = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ArtifactError(
            f"{path}: the disk has {free / 1e6:,.0f} MB free, and the models of this run need "
            f"{needed / 1e6:,.0f} MB at least. Free space, or choose another --out"
        )


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
