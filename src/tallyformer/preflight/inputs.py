"""Whether everything a stage reads is there, found out before any work and without writing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tallyformer.artifacts.hub_names import could_be_hub_name
from tallyformer.artifacts.hub_reach import Hub
from tallyformer.artifacts.manifest import Manifest
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.config.data import PairSource, TextSource
from tallyformer.config.distill import TeacherSection
from tallyformer.config.model import TokenizerSection
from tallyformer.data.files import find_files, kind_of
from tallyformer.data.sources import dataset_files
from tallyformer.errors import ArtifactError, DataError
from tallyformer.preflight.first_rows import problems_of_first_rows
from tallyformer.tokenizer.loading import FILES

NEEDS = {
    "tokenizer": (),
    "prepare": ("tokenizer",),
    "pretrain": ("tokenizer", "prepare"),
    "teacher": ("tokenizer", "prepare"),
    "distill": ("tokenizer", "prepare", "pretrain"),
    "sft": ("tokenizer", "pretrain"),
    "merge": ("tokenizer", "pretrain", "sft"),
    "evaluate": ("tokenizer", "prepare", "pretrain"),
    "export": ("tokenizer", "pretrain"),
}
"""Stages whose finished folders a stage reads, whatever the recipe."""


def check_inputs(recipe: Recipe, folder: RunFolder, stages: Sequence[str]) -> None:
    """Check the files, folders, hub names and earlier stages that `stages` read.

    Of each source the first rows are read. A stage that is finished needs nothing; one that
    `stages` makes itself need not be there.

    Raises:
        ArtifactError: an earlier stage is not finished.
        DataError: a source is missing, empty or not as the recipe says; all such are named.
    """
    problems: list[str] = []
    hub = Hub()
    for place, stage in enumerate(stages):
        if folder.is_finished(stage):
            continue
        _check_earlier_stages(recipe, folder, stage, stages[:place])
        problems += [found for found in _missing(recipe, stage, hub) if found not in problems]
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise DataError(f"{recipe.name}: {len(problems)} inputs cannot be used:{listed}")


def check_same_inputs(inputs: Mapping[str, str], earlier: Manifest) -> None:
    """Refuse an input that has changed since an earlier stage of the run read it.

    Args:
        inputs: fingerprints by name, of what a stage is about to read.
        earlier: a finished stage; what it did not read is not compared.

    Raises:
        DataError: an input differs.
    """
    for name, now in inputs.items():
        if earlier.inputs.get(name, now) != now:
            raise DataError(
                f"{name}: has changed since the stage {earlier.stage} of this run read it. Put it "
                "back, or choose another --out to start again"
            )


def needs_of(recipe: Recipe, stage: str) -> list[str]:
    """The stages that `stage` reads in this recipe."""
    needs = list(NEEDS[stage])
    if stage == "sft" and recipe.sft and recipe.sft.replay:
        needs.append("prepare")
    if stage == "distill" and recipe.teacher and recipe.teacher.model:
        needs.append("teacher")
    if stage in ("sft", "merge", "evaluate", "export") and recipe.distill:
        needs.append("distill")
    if stage in ("evaluate", "export") and recipe.sft:
        needs.append("merge")
    return needs


def _check_earlier_stages(
    recipe: Recipe, folder: RunFolder, stage: str, made_before: Sequence[str]
) -> None:
    for needed in needs_of(recipe, stage):
        if needed not in made_before:
            try:
                folder.manifest(needed)
            except ArtifactError as error:
                raise ArtifactError(f"{stage} needs {needed}: {error}") from None


def _missing(recipe: Recipe, stage: str, hub: Hub) -> Iterator[str]:
    if stage == "tokenizer" and recipe.tokenizer.kind == "pretrained":
        yield from _missing_folder(recipe, "tokenizer", recipe.tokenizer, hub, FILES[:2])
    reads_texts = stage == "tokenizer" and recipe.tokenizer.kind == "train"
    if stage == "prepare" or reads_texts:
        for source in recipe.prepare.sources:
            yield from _problems_of_source(recipe, "prepare", source, hub)
    if stage == "distill" and recipe.teacher and recipe.teacher.source:
        yield from _missing_folder(recipe, "teacher", recipe.teacher, hub, ("config.json",))
    if stage == "sft" and recipe.sft:
        for pairs in recipe.sft.sources:
            yield from _problems_of_source(recipe, "sft", pairs, hub)


def _missing_folder(
    recipe: Recipe,
    name: str,
    section: TokenizerSection | TeacherSection,
    hub: Hub,
    files: tuple[str, ...],
) -> Iterator[str]:
    """A section's source that is neither here nor on the hub."""
    key, source = f"{name}.source", str(section.source)
    place = Path(recipe.locate(source, section.revision))
    if place.is_file():
        yield f"{key}: {place} is a file. Give the folder that holds it"
    elif not place.is_dir() and not could_be_hub_name(source):
        yield f"{key}: {source}: no such folder. Correct the path, or set data_root"
    elif not place.is_dir():
        reason = hub.problem(source, section.revision, kind="model", cached=files)
        if reason:
            yield f"{key}: {source}: no such folder, and on the hub: {reason}. Give a local folder"


def _problems_of_source(
    recipe: Recipe, section: str, source: TextSource | PairSource, hub: Hub
) -> Iterator[str]:
    missing = list(_missing_source(recipe, section, source))
    yield from missing or problems_of_first_rows(recipe, source, hub)


def _missing_source(recipe: Recipe, section: str, source: TextSource | PairSource) -> Iterator[str]:
    where = f"{section} source {source.name!r}"
    if source.dataset and importlib.util.find_spec("datasets") is None:
        yield f"{where}: reads a data set; install the reader: pip install 'tallyformer[hub]'"
    if source.dataset:
        try:
            dataset_files(source, recipe.data_root)
        except DataError as error:
            yield str(error)
    if not source.paths:
        return
    try:
        files = find_files(source.paths, recipe.data_root, source.name)
        for file in files:
            kind_of(file)
    except DataError as error:
        yield str(error)
        return
    yield from _unusable(where, files)


def _unusable(where: str, files: Sequence[Path]) -> Iterator[str]:
    """Files that cannot be read, and empty ones where there are no others."""
    empty = []
    for file in files:
        try:
            with file.open("rb") as handle:
                if not handle.read(1):
                    empty.append(file)
        except OSError as error:
            yield f"{where}: {file} cannot be read ({error.strerror}). Allow it for this user"
    if len(empty) == len(files):
        for file in empty:
            yield f"{where}: {file} is empty. Remove it from the paths, or fetch it again"
