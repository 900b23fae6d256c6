"""From sources to token shards, in three passes.

1. Units: chunks of rows are cleaned, hashed and tokenised by several processes, a file each.
2. Deduplication: of equal documents, across all sources and both splits, the first one stays.
3. Shards: units are read in order and written by source and split.

A killed run resumes: finished units stay, the later passes are short and start again. The shards'
bytes depend on the recipe and the inputs alone. Memory holds a few units, never the corpus.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.manifest import file_entry
from tallyformer.artifacts.run_folder import clear
from tallyformer.config.data import PrepareSection, TextSource
from tallyformer.data.cleaning import Cleaning
from tallyformer.data.dedup import mark_first
from tallyformer.data.filters import DUPLICATE, EMPTY, INVALID_UTF8, TOO_LONG, TOO_SHORT
from tallyformer.data.passages import SplitSource
from tallyformer.data.shard_writer import ShardWriter
from tallyformer.data.shards import FILES, SPLITS, id_type
from tallyformer.data.sources import RowSource
from tallyformer.data.units import (
    Chunk,
    TokenizerName,
    Unit,
    cached_tokenizer,
    chunks_of,
    cut_unit,
    process,
    read_digests,
    read_text_bytes,
    read_unit,
)
from tallyformer.data.workers import Workers
from tallyformer.errors import DataError
from tallyformer.progress import progress_bar

UNITS = "units"
"""Sub-folder of temporary files; deleted when the manifest is written."""

_FIXES = {
    EMPTY: "name the field that holds the text (text_field)",
    TOO_SHORT: "lower prepare.min_chars",
    TOO_LONG: "raise prepare.max_chars",
    INVALID_UTF8: "convert its files to UTF-8",
}
"""What helps a source of which nothing is kept, by the reason why its documents are dropped."""


@dataclass
class SourceCounts:
    """What became of one source's rows.

    documents_in = documents of both splits + dropped, and tokens and bytes are of what is kept.
    """

    documents_in: int = 0
    documents: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    text_bytes: Counter[str] = field(default_factory=Counter)

    def add(self, unit: Unit, first: np.ndarray) -> None:
        """Count a unit; `first` says which of its documents are not repetitions, bool (n,)."""
        self.documents_in += unit.rows
        self.dropped.update(unit.dropped)
        if not first.all():
            self.dropped[DUPLICATE] += int((~first).sum())
        for split, member in _members(unit, first).items():
            self.documents[split] += int(member.sum())
            self.tokens[split] += int(unit.lengths[member].sum())
            self.text_bytes[split] += int(unit.text_bytes[member].sum())

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "documents_in": self.documents_in,
            "documents": _with_sum(self.documents),
            "dropped": dict(sorted(self.dropped.items())),
            "tokens": _with_sum(self.tokens),
            "bytes": _with_sum(self.text_bytes),
        }

    @staticmethod
    def total(parts: Sequence[SourceCounts]) -> SourceCounts:
        """The sum over sources."""
        return SourceCounts(
            sum(p.documents_in for p in parts),
            *(
                sum((getattr(p, name) for p in parts), Counter())
                for name in ("documents", "dropped", "tokens", "text_bytes")
            ),
        )


def write_shards(
    sources: Sequence[RowSource],
    section: PrepareSection,
    *,
    tokenizer: TokenizerName,
    folder: Path,
    seed: int,
    workers: int,
) -> tuple[dict[str, Any], dict[Path, dict[str, Any]]]:
    """Do all three passes.

    Args:
        sources: readers, in the order of `section.sources`.
        section: the recipe's.
        tokenizer: which one each process loads.
        folder: the stage's folder; finished units of an earlier attempt are used.
        seed: decides the split.
        workers: number of processes.

    Returns:
        Metrics for the manifest, and the files it lists with their sizes and checksums.

    Raises:
        DataError: an input cannot be used, or nothing of it is left.
        ArtifactError: the disk is full.
    """
    vocabulary = cached_tokenizer(tokenizer)
    cleaning = Cleaning.of(section, seed)
    splits = [
        SplitSource.of(source, limits, cleaning)
        for source, limits in zip(sources, section.sources, strict=True)
    ]
    with Workers(workers) as processes:
        units = [
            make_units(
                source,
                limits,
                number=number,
                folder=folder / UNITS,
                work=functools.partial(process, split=split, tokenizer=tokenizer),
                processes=processes,
            )
            for number, (source, limits, split) in enumerate(
                zip(sources, section.sources, splits, strict=True)
            )
        ]
    first = _deduplicate(units, folder / UNITS)
    for split in SPLITS:
        clear(folder / split)
    dtype = id_type(vocabulary.vocab_size)
    counts, files = _write(
        sources, units, first, folder=folder, dtype=dtype, shard_tokens=section.shard_tokens
    )
    write_json(folder / FILES, {source.name: list(source.files) for source in sources})
    metrics = {
        "sources": {
            source.name: {
                **counts[source.name].as_dict(),
                "empty_files": len(source.empty_files),
                "passage_characters": split.passage,
            }
            for source, split in zip(sources, splits, strict=True)
        },
        "total": SourceCounts.total(list(counts.values())).as_dict(),
        "dtype": dtype.str,
        "eot_id": vocabulary.eot_id,
        "vocab_size": vocabulary.vocab_size,
    }
    return metrics, {**files, folder / FILES: file_entry(folder / FILES)}


def make_units(
    source: RowSource,
    limits: TextSource,
    *,
    number: int,
    folder: Path,
    work: Callable[[Chunk], None],
    processes: Workers,
) -> list[Path]:
    """Pass 1 for one source; units that exist are not made again.

    Returns:
        The units' files, in order, up to the one with which the text reaches `max_bytes`. More
        may have been made, how many depends on the processes; they are left out.
    """
    units = _Units(limits.max_bytes)
    total = sum(source.sizes) if source.sizes is not None else None
    if limits.max_documents and source.unit == "rows":
        total = limits.max_documents
    with progress_bar(source.name, total, source.unit) as bar:

        def missing() -> Iterator[Chunk]:
            for chunk in chunks_of(source, number, folder, limits.max_documents):
                if units.are_enough():
                    return
                units.paths.append(chunk.path)
                if chunk.path.exists():
                    bar.update(chunk.read)
                else:
                    yield chunk

        for chunk in processes.for_each(work, missing()):
            bar.update(chunk.read)
    return units.within_limit()


class _Units:
    """The units of a source in order, begun or finished, and how much text they hold.

    Args:
        max_bytes: of text, at most this much and the document that reaches it; None for all.
    """

    def __init__(self, max_bytes: int | None) -> None:
        self.paths: list[Path] = []
        self._max_bytes = max_bytes
        self._counted = self._text_bytes = 0

    def are_enough(self) -> bool:
        """Whether the finished units, as far as none before them is missing, reach the limit."""
        if self._max_bytes is None:
            return False
        for path in itertools.islice(self.paths, self._counted, None):
            if self._text_bytes >= self._max_bytes or not path.exists():
                break
            self._text_bytes += read_text_bytes(path)
            self._counted += 1
        return self._text_bytes >= self._max_bytes

    def within_limit(self) -> list[Path]:
        """The units up to the limit, the last one cut there; all must be finished."""
        if self._max_bytes is None or not self.are_enough():
            return self.paths
        last = self.paths[self._counted - 1]
        before = self._text_bytes - read_text_bytes(last)
        cut_unit(last, self._max_bytes - before)
        return self.paths[: self._counted]


def _deduplicate(units: Sequence[Sequence[Path]], folder: Path) -> Iterator[np.ndarray]:
    """Pass 2; yields for each unit, in order, which of its documents come first, bool (n,)."""
    paths = list(itertools.chain.from_iterable(units))
    sizes = [len(read_digests(path)) for path in paths]
    marks = mark_first(map(read_digests, paths), sum(sizes), folder)
    with marks.open("rb") as file:
        for size in sizes:
            yield np.frombuffer(file.read(size), dtype=np.uint8).astype(bool)


def _write(
    sources: Sequence[RowSource],
    units: Sequence[Sequence[Path]],
    first: Iterator[np.ndarray],
    *,
    folder: Path,
    dtype: np.dtype[Any],
    shard_tokens: int,
) -> tuple[dict[str, SourceCounts], dict[Path, dict[str, Any]]]:
    """Pass 3."""
    counts: dict[str, SourceCounts] = {}
    files: dict[Path, dict[str, Any]] = {}
    total = sum(len(paths) for paths in units)
    with progress_bar("shards", total, "units") as bar:
        for source, paths in zip(sources, units, strict=True):
            count = counts[source.name] = SourceCounts()
            with contextlib.ExitStack() as stack:
                writers = {
                    split: stack.enter_context(
                        ShardWriter(folder / split / source.name, dtype, shard_tokens)
                    )
                    for split in SPLITS
                }
                for path in paths:
                    unit, marks = read_unit(path), next(first)
                    count.add(unit, marks)
                    _write_unit(unit, marks, writers)
                    bar.update(1)
            files |= {path: file_entry(path) for w in writers.values() for path in w.paths}
            _check_not_empty(source.name, count)
    return counts, files


def _write_unit(unit: Unit, first: np.ndarray, writers: Mapping[str, ShardWriter]) -> None:
    for split, member in _members(unit, first).items():
        if member.any():
            of_member = np.repeat(member, unit.lengths)
            writers[split].add(unit.tokens[of_member], unit.lengths[member], unit.origins[member])


def _members(unit: Unit, first: np.ndarray) -> dict[str, np.ndarray]:
    """Which documents of a unit each split gets, bool (n,)."""
    return dict(zip(SPLITS, (first & ~unit.validation, first & unit.validation), strict=True))


def _check_not_empty(name: str, count: SourceCounts) -> None:
    if not sum(count.documents.values()):
        raise nothing_kept(name, count.documents_in, count.dropped)


def nothing_kept(name: str, documents: int, dropped: Counter[str]) -> DataError:
    """The error for a source of which no document is left.

    Args:
        name: the source's.
        documents: how many it has.
        dropped: how many of them by reason.
    """
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items()))
    fixes = [fix for reason, fix in _FIXES.items() if dropped[reason]]
    advice = ", or ".join([*fixes, "remove the source"])
    return DataError(
        f"source {name!r}: none of its {documents} documents is kept ({reasons}). "
        f"{advice[0].upper()}{advice[1:]}"
    )


def _with_sum(counts: Counter[str]) -> dict[str, int]:
    return {**{split: counts[split] for split in SPLITS}, "total": sum(counts.values())}
