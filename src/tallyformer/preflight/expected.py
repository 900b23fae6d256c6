"""Whether the inputs are those that a dry run saw: a short code that `run --expect` compares.

A code has eight hexadecimal digits for each input, in the order in which the stages read them. An
input of up to `WHOLE` bytes counts by its contents, a larger one by the names, sizes and
modification times of its files, as a dry run should not read hundreds of gigabytes.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tallyformer.artifacts.manifest import sha256
from tallyformer.config import Recipe
from tallyformer.config.data import PairSource, TextSource
from tallyformer.data.files import find_files, unreadable
from tallyformer.data.sources import dataset_files, pair_source, text_source
from tallyformer.errors import DataError, UsageError

WHOLE = 1 << 30
"""Bytes of an input that are read whole, which takes a second or two."""
_DIGITS = 8
_CODE = re.compile(rf"[0-9a-f]{{{_DIGITS}}}(-[0-9a-f]{{{_DIGITS}}})*")


@dataclass(frozen=True)
class Input:
    """One input as it is now.

    Attributes:
        name: as errors call it, for example "prepare source 'texts'".
        digest: of what it holds.
        looks: what it is made of, in words; "" for what is not a file.
    """

    name: str
    digest: str
    looks: str = ""


def inputs_of(recipe: Recipe, stages: Sequence[str]) -> list[Input]:
    """What some stages read from outside the run, finished or not, as it is now.

    Args:
        recipe: with the commits of hub names, as far as they are known.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    found: dict[str, Input] = {}
    for stage in stages:
        for one in _inputs_of_stage(recipe, stage):
            found.setdefault(one.name, one)
    return list(found.values())


def code_of(inputs: Sequence[Input]) -> str:
    """What a dry run prints, for `--expect`; "" without inputs."""
    return "-".join(one.digest for one in inputs)


def check_expected(code: str, inputs: Sequence[Input], look_again: str) -> None:
    """Refuse inputs that are not those of a dry run.

    Args:
        code: what the dry run printed.
        inputs: as they are now.
        look_again: the command of the dry run.

    Raises:
        UsageError: that is not a code, or it is of another number of inputs.
        DataError: an input has changed; each that has is named.
    """
    if not _CODE.fullmatch(code):
        raise UsageError(
            f"--expect: {code!r} is not what a dry run prints. Copy it from: {look_again}"
        )
    digests = code.split("-")
    if len(digests) != len(inputs):
        raise UsageError(
            f"--expect: is of {len(digests)} inputs, and the recipe has {len(inputs)} now. Look "
            f"again: {look_again}"
        )
    pairs = zip(digests, inputs, strict=True)
    _refuse(
        [now for digest, now in pairs if digest != now.digest],
        "since the dry run",
        f"look again: {look_again}",
    )


def check_unchanged_inputs(before: Sequence[Input], now: Sequence[Input]) -> None:
    """Refuse an input that has changed since a run began.

    Raises:
        DataError: each that has changed is named.
    """
    known = {one.name: one.digest for one in before}
    _refuse(
        [one for one in now if known.get(one.name, one.digest) != one.digest],
        "since this run began",
        "run the same command again to take it as it is",
    )


def _refuse(changed: Sequence[Input], since: str, otherwise: str) -> None:
    if changed:
        named = "; ".join(f"{one.name} has changed {since}{one.looks}" for one in changed)
        raise DataError(f"{named}. Put it back, or {otherwise}")


def _inputs_of_stage(recipe: Recipe, stage: str) -> Iterator[Input]:
    tokenizer, teacher = recipe.tokenizer, recipe.teacher
    if stage in ("tokenizer", "prepare"):
        if tokenizer.kind == "pretrained":
            yield _folder("tokenizer.source", recipe, tokenizer.source, tokenizer.revision)
        for source in recipe.prepare.sources:
            yield _source("prepare", recipe, source)
    if stage == "distill" and teacher and teacher.source:
        yield _folder("teacher.source", recipe, teacher.source, teacher.revision)
    if stage == "sft" and recipe.sft:  # `evaluate` compares with what `sft` has read
        for pairs in recipe.sft.sources:
            yield _source("sft", recipe, pairs)


def _source(section: str, recipe: Recipe, source: TextSource | PairSource) -> Input:
    name, root, seed = f"{section} source {source.name!r}", recipe.data_root, recipe.seed
    if source.paths:
        return _files(name, find_files(source.paths, root, source.name), Path(root))
    if source.dataset:
        place, _, _ = dataset_files(source, root)
        if Path(place).is_dir():
            return _below(name, Path(place))
        which = [source.dataset_config, source.dataset_split, source.revision, source.data_files]
        return Input(name, _digest([place, *which]))
    if isinstance(source, PairSource):
        corpus = pair_source(source, data_root=root, seed=seed)
    else:
        most = recipe.prepare.max_chars
        corpus = text_source(source, data_root=root, seed=seed, max_chars=most)
    return Input(name, _digest(corpus.fingerprints()))


def _folder(name: str, recipe: Recipe, source: str, revision: str | None) -> Input:
    """A tokenizer or a model, here or on the hub."""
    place = Path(recipe.locate(source, revision))
    return _below(name, place) if place.is_dir() else Input(name, _digest([source, revision]))


def _below(name: str, folder: Path) -> Input:
    return _files(name, sorted(path for path in folder.rglob("*") if not path.is_dir()), folder)


def _files(name: str, files: Sequence[Path], root: Path) -> Input:
    if not files:
        return Input(name, _digest([]), " (now without a file)")
    states = [_stat(file) for file in files]
    size = sum(state.st_size for state in states)
    held = [
        [os.path.relpath(file, root), _whole(file) if size <= WHOLE else _outside(state)]
        for file, state in zip(files, states, strict=True)
    ]
    newest = max(range(len(files)), key=lambda number: states[number].st_mtime_ns)
    when = datetime.datetime.fromtimestamp(states[newest].st_mtime)
    many = f"{len(files)} files" if len(files) > 1 else "1 file"
    looks = (
        f" (now {many} with {size:,} bytes, the newest {files[newest]} of {when:%Y-%m-%d %H:%M})"
    )
    return Input(name, _digest(held), looks)


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise unreadable(file, error) from None


def _whole(file: Path) -> str:
    try:
        return sha256(file)
    except OSError as error:
        raise unreadable(file, error) from None


def _outside(state: os.stat_result) -> list[int]:
    return [state.st_size, state.st_mtime_ns]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_DIGITS]
