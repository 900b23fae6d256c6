"""Stage tokenizer: the vocabulary, loaded or learnt from the recipe's training text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tallyformer.artifacts.manifest import Manifest
from tallyformer.artifacts.model_folder import check_model_folder
from tallyformer.artifacts.run_folder import RunFolder, StageWork
from tallyformer.artifacts.scratch import scratch_folder
from tallyformer.config import Recipe
from tallyformer.data.cleaning import Cleaning
from tallyformer.data.sample import training_sample
from tallyformer.data.sources import RowSource, check_unchanged, text_source
from tallyformer.progress import progress_bar
from tallyformer.tokenizer import Tokenizer
from tallyformer.tokenizer.training import train_backend_in_child


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Load or train the tokenizer and save it as a transformers folder in `tokenizer/`.

    Raises:
        TokenizerError: it is missing or damaged, or the text does not support the vocabulary.
        DataError: an input of the training is missing or cannot be used.
        ArtifactError: the folder holds other work, or the disk is full.
    """
    if recipe.tokenizer.kind == "train":
        return _train(recipe, folder, resume)
    tokenizer = _pretrained(recipe)
    work = _loading(recipe, folder, tokenizer, resume)
    return work.already_done() or _save(recipe, work, tokenizer, {})


def work_of(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> StageWork:
    """What decides the vocabulary. Reads the training's inputs to the end."""
    if recipe.tokenizer.kind == "train":
        return _training(recipe, folder, _sources(recipe), resume)
    return _loading(recipe, folder, _pretrained(recipe), resume)


def _pretrained(recipe: Recipe) -> Tokenizer:
    section = recipe.tokenizer
    place = recipe.locate(section.source, section.revision)
    check_model_folder(Path(place))
    return Tokenizer.from_pretrained(place, section.revision)


def _loading(recipe: Recipe, folder: RunFolder, tokenizer: Tokenizer, resume: bool) -> StageWork:
    source = recipe.tokenizer.source
    config = {"kind": "pretrained", "source": source, "revision": recipe.tokenizer.revision}
    return _work(recipe, folder, config, {source: tokenizer.fingerprint}, resume)


def _sources(recipe: Recipe) -> list[RowSource]:
    most = recipe.prepare.max_chars
    return [
        text_source(s, data_root=recipe.data_root, seed=recipe.seed, max_chars=most)
        for s in recipe.prepare.sources
    ]


def _training(
    recipe: Recipe, folder: RunFolder, sources: Sequence[RowSource], resume: bool
) -> StageWork:
    section = recipe.tokenizer
    inputs: dict[str, str] = {}
    for source in sources:
        inputs.update(source.fingerprints())
    no_matter: dict[str, Any] = {"workers": True, "shard_tokens": True}
    no_matter["sources"] = {"__all__": {"weight"}}
    prepare = recipe.prepare.model_dump(mode="json", exclude=no_matter)
    config = {
        "kind": "train",
        "vocab_size": section.vocab_size,
        "train_bytes": section.train_bytes,
        "prepare": prepare,
    }
    return _work(recipe, folder, config, inputs, resume)


def _train(recipe: Recipe, folder: RunFolder, resume: bool) -> Manifest:
    sources = _sources(recipe)
    work = _training(recipe, folder, sources, resume)
    if done := work.already_done():
        return done
    section, cleaning = recipe.tokenizer, Cleaning.of(recipe.prepare, recipe.seed)
    read = {"documents": 0, "bytes": 0}
    sample = training_sample(sources, recipe.prepare.sources, cleaning, section.train_bytes)
    texts = _counted(sample, section.train_bytes, read)
    with scratch_folder(work.folder) as scratch:
        tokenizer = Tokenizer(train_backend_in_child(texts, section.vocab_size, scratch))
    check_unchanged(sources, work.inputs)
    return _save(recipe, work, tokenizer, {"trained_on": read})


def _counted(texts: Iterable[str], max_bytes: int, read: dict[str, int]) -> Iterator[str]:
    with progress_bar("vocabulary", max_bytes, "B") as bar:
        for text in texts:
            size = len(text.encode())
            read["documents"] += 1
            read["bytes"] += size
            bar.update(size)
            yield text
        bar.total = bar.n  # the sources may hold less


def _work(
    recipe: Recipe,
    folder: RunFolder,
    config: dict[str, Any],
    inputs: dict[str, str],
    resume: bool,
) -> StageWork:
    config = {**config, "model_max_length": recipe.model.max_position_embeddings}
    sections = {"prepare": "prepare", "model_max_length": "model.max_position_embeddings"}
    return StageWork(folder, "tokenizer", config, recipe.seed, inputs, resume, sections)


def _save(
    recipe: Recipe, work: StageWork, tokenizer: Tokenizer, metrics: dict[str, Any]
) -> Manifest:
    files = tokenizer.save(work.folder, recipe.model.max_position_embeddings)
    sizes = {"vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint}
    return work.finish(metrics={**sizes, **metrics}, files=files)
