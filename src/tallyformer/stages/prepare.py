"""Stage prepare: sources to token shards."""

from __future__ import annotations

from collections.abc import Sequence

from tallyformer.artifacts.manifest import Manifest
from tallyformer.artifacts.run_folder import RunFolder, StageWork, clear
from tallyformer.config import Recipe
from tallyformer.data.prepare import UNITS, write_shards
from tallyformer.data.sources import RowSource, check_unchanged, text_source
from tallyformer.data.units import TokenizerName
from tallyformer.data.workers import worker_count
from tallyformer.errors import DataError
from tallyformer.preflight.inputs import check_same_inputs


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Clean, deduplicate, split and tokenise the recipe's sources into `prepare/`.

    Raises:
        DataError: an input is missing or cannot be used.
        ArtifactError: the folder holds other work, the tokenizer's is not finished, or the disk
            is full.
    """
    work = work_of(recipe, folder, resume=resume)
    if not folder.is_finished("prepare"):
        check_same_inputs(work.inputs, folder.manifest("tokenizer"))
    if done := work.already_done():
        clear(work.folder / UNITS)
        return done
    section, sources = recipe.prepare, _sources(recipe)
    metrics, files = write_shards(
        sources,
        section,
        tokenizer=_tokenizer(folder),
        folder=work.folder,
        seed=recipe.seed,
        workers=worker_count(section.workers),
    )
    _check_unchanged(sources, work)
    manifest = work.finish(metrics=metrics, files=files)
    clear(work.folder / UNITS)
    return manifest


def _check_unchanged(sources: Sequence[RowSource], work: StageWork) -> None:
    try:
        check_unchanged(sources, work.inputs)
    except DataError:
        clear(work.folder)  # some of it may be made of the changed input
        raise


def work_of(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> StageWork:
    """What decides the shards. Reads the inputs to the end."""
    inputs = {"tokenizer": _tokenizer(folder).fingerprint}
    for source in _sources(recipe):
        inputs.update(source.fingerprints())
    return StageWork(
        folder,
        "prepare",
        recipe.prepare.model_dump(mode="json", exclude={"workers"}),
        recipe.seed,
        inputs,
        resume,
    )


def _sources(recipe: Recipe) -> list[RowSource]:
    return [
        text_source(
            source,
            data_root=recipe.data_root,
            seed=recipe.seed,
            max_chars=recipe.prepare.max_chars,
        )
        for source in recipe.prepare.sources
    ]


def _tokenizer(folder: RunFolder) -> TokenizerName:
    vocabulary = folder.manifest("tokenizer", check=True)
    return TokenizerName(folder.stage("tokenizer"), vocabulary.metrics["fingerprint"])
