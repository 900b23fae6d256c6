"""Stage prepare: sources to token shards."""

from __future__ import annotations

from tallyformer.artifacts.manifest import Manifest
from tallyformer.artifacts.run_folder import RunFolder, StageWork, clear
from tallyformer.config import Recipe
from tallyformer.data.prepare import UNITS, write_shards
from tallyformer.data.sources import text_source
from tallyformer.data.units import TokenizerName
from tallyformer.data.workers import worker_count


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Clean, deduplicate, split and tokenise the recipe's sources into `prepare/`.

    Raises:
        DataError: an input is missing or cannot be used.
        ArtifactError: the folder holds other work, the tokenizer's is not finished, or the disk
            is full.
    """
    section = recipe.prepare
    sources = [
        text_source(
            source, data_root=recipe.data_root, seed=recipe.seed, max_chars=section.max_chars
        )
        for source in section.sources
    ]
    vocabulary = folder.manifest("tokenizer", check=True)
    tokenizer = TokenizerName(folder.stage("tokenizer"), vocabulary.metrics["fingerprint"])
    inputs = {"tokenizer": tokenizer.fingerprint}
    for source in sources:
        inputs.update(source.fingerprints())
    work = StageWork(
        folder,
        "prepare",
        section.model_dump(mode="json", exclude={"workers"}),
        recipe.seed,
        inputs,
        resume,
    )
    if done := work.already_done():
        clear(work.folder / UNITS)
        return done
    metrics, files = write_shards(
        sources,
        section,
        tokenizer=tokenizer,
        folder=work.folder,
        seed=recipe.seed,
        workers=worker_count(section.workers),
    )
    manifest = work.finish(metrics=metrics, files=files)
    clear(work.folder / UNITS)
    return manifest
