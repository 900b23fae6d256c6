"""Names on the Hugging Face hub become commits at their first use in a run.

A branch moves; a run that is begun today and ended tomorrow must read the same data, tokenizer and
teacher. So the commits are written to `hub.json` in the run's folder, and every later start uses
them. From there they go into the stages' configurations and fingerprints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from tallyformer.artifacts.hub_reach import Hub
from tallyformer.artifacts.json_files import read_checked_json, write_checked_json
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.config.data import PairSource, TextSource
from tallyformer.data.sources import dataset_files

RECORD = "hub.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_Source = TypeVar("_Source", TextSource, PairSource)


class HubName(NamedTuple):
    """What a recipe names on the hub."""

    kind: Literal["model", "dataset"]
    name: str
    revision: str | None

    @property
    def key(self) -> str:
        """How the record calls it."""
        return f"{self.kind} {self.name}" + (f"@{self.revision}" if self.revision else "")


def with_commits(
    recipe: Recipe, folder: RunFolder, stages: Sequence[str], *, record: bool
) -> Recipe:
    """The recipe with a commit for each hub name, as far as it is known or can be found out.

    A name that the hub does not know, and one that cannot be asked for, stays as it is: the stage
    that reads it says so.

    Args:
        recipe: as the user wrote it.
        folder: the run's; its record comes first.
        stages: for whose names the hub is asked.
        record: whether what is found is written to the folder.

    Raises:
        ArtifactError: the record is damaged, or cannot be written.
    """
    path = folder.path / RECORD
    fix = f"Choose another --out, or delete {folder.path} to start again"
    known: dict[str, Any] = read_checked_json(path, fix=fix) if path.exists() else {}
    hub, before = Hub(), len(known)
    for wanted in _names(recipe, [s for s in stages if not folder.is_finished(s)]):
        if wanted.key not in known and not _COMMIT.fullmatch(wanted.revision or ""):
            commit = hub.commit(wanted.name, wanted.revision, kind=wanted.kind)
            known |= {wanted.key: commit} if commit else {}
    if record and len(known) > before:
        write_checked_json(path, known)
    return _pinned(recipe, known) if known else recipe


def _names(recipe: Recipe, stages: Sequence[str]) -> Iterator[HubName]:
    """What some stages read from the hub."""
    learns = "tokenizer" in stages and recipe.tokenizer.kind == "train"
    sources: list[TextSource | PairSource] = []
    if learns or "prepare" in stages:
        sources += recipe.prepare.sources
    if recipe.sft and {"sft", "evaluate"} & set(stages):
        sources += recipe.sft.sources
    for source in sources:
        if name := _dataset(recipe, source):
            yield name
    if "tokenizer" in stages and (name := _tokenizer(recipe)):
        yield name
    if {"distill", "evaluate"} & set(stages) and (name := _teacher(recipe)):
        yield name


def _dataset(recipe: Recipe, source: TextSource | PairSource) -> HubName | None:
    if not source.dataset or Path(dataset_files(source, recipe.data_root)[0]).is_dir():
        return None
    return HubName("dataset", source.dataset, source.revision)


def _tokenizer(recipe: Recipe) -> HubName | None:
    section = recipe.tokenizer
    if section.kind != "pretrained":
        return None
    return _model(recipe, section.source, section.revision)


def _teacher(recipe: Recipe) -> HubName | None:
    section = recipe.teacher
    if section is None or not section.source:
        return None
    return _model(recipe, section.source, section.revision)


def _model(recipe: Recipe, source: str, revision: str | None) -> HubName | None:
    if Path(recipe.locate(source, revision)).exists():
        return None
    return HubName("model", source, revision)


def _pinned(recipe: Recipe, known: dict[str, Any]) -> Recipe:
    def commit(name: HubName | None) -> dict[str, Any]:
        return {"revision": known[name.key]} if name and name.key in known else {}

    def sources(found: Sequence[_Source]) -> tuple[_Source, ...]:
        return tuple(s.model_copy(update=commit(_dataset(recipe, s))) for s in found)

    prepare, sft, teacher = recipe.prepare, recipe.sft, recipe.teacher
    return recipe.model_copy(
        update={
            "prepare": prepare.model_copy(update={"sources": sources(prepare.sources)}),
            "tokenizer": recipe.tokenizer.model_copy(update=commit(_tokenizer(recipe))),
            "teacher": teacher and teacher.model_copy(update=commit(_teacher(recipe))),
            "sft": sft and sft.model_copy(update={"sources": sources(sft.sources)}),
        }
    )
