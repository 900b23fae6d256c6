"""Some documents of every source, and from them the size of the whole.

Rows are counted as far as the source is read, which is to its end unless it is large. Only some
of them, spread evenly over it, are cleaned; they say how much of a row is text.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from tallyformer.config import Recipe
from tallyformer.config.data import TextSource
from tallyformer.data.cleaning import Cleaning, clean_rows
from tallyformer.data.rows import Row, row_bytes
from tallyformer.data.sources import RowSource, text_source

_FILES = 64
READ_BYTES = 16 << 20
"""Of each source, as it lies on the disk; to unpack and read so much takes a second or two."""
_MEMORY = 0.95
"""What a cleaned row still counts when the next one has been cleaned."""


@dataclass(frozen=True)
class SampledSource:
    """One source, judged by a sample.

    Attributes:
        name: its name in the recipe.
        file: JSON lines with the sampled documents.
        documents: estimated number of documents that pass the filters; None if unknown.
        text_bytes: estimated UTF-8 bytes of those, before deduplication; None if unknown.
    """

    name: str
    file: Path
    documents: int | None
    text_bytes: int | None


def sample_sources(recipe: Recipe, folder: Path, bytes_per_source: int) -> list[SampledSource]:
    """Write a sample of each source into `folder`, cleaned as `prepare` would.

    At most 64 files of a source are read, spread evenly over it, and at most `READ_BYTES` of
    them, each file from its beginning. Of a hub data set only the first rows are read.

    Raises:
        DataError: an input is missing or cannot be used.
    """
    cleaning = Cleaning.of(recipe.prepare, recipe.seed)
    return [
        _sample(section, recipe, cleaning, folder / f"{section.name}.jsonl", bytes_per_source)
        for section in recipe.prepare.sources
    ]


def _sample(
    section: TextSource, recipe: Recipe, cleaning: Cleaning, out: Path, most_bytes: int
) -> SampledSource:
    source = text_source(
        section, data_root=recipe.data_root, seed=recipe.seed, max_chars=cleaning.max_chars
    )
    with out.open("w", encoding="utf-8") as file:
        sample = _Sample(source, cleaning, file, most_bytes)
        if source.sizes is None:
            found = _count_stream(source, section, sample)
        else:
            found = _count_files(source, source.sizes, section, sample)
    if found is None:
        return SampledSource(section.name, out, None, None)
    found = found.times(min([1.0, *_shares_within_limits(section, found)]))
    return SampledSource(section.name, out, round(found.documents), round(found.text_bytes))


@dataclass(frozen=True)
class _Size:
    """Rows, those that pass the filters, and the bytes of their texts."""

    rows: float = 0.0
    documents: float = 0.0
    text_bytes: float = 0.0

    def __add__(self, other: _Size) -> _Size:
        return _Size(
            self.rows + other.rows,
            self.documents + other.documents,
            self.text_bytes + other.text_bytes,
        )

    def times(self, factor: float) -> _Size:
        """As many rows of the same kind."""
        return _Size(self.rows * factor, self.documents * factor, self.text_bytes * factor)


class _Sample:
    """Cleans some rows, writes their texts, and judges the others by them.

    Args:
        source: where the rows come from.
        cleaning: how.
        file: gets a line of JSON a text.
        most_bytes: of text, and as much as makes the last document whole.
    """

    def __init__(
        self, source: RowSource, cleaning: Cleaning, file: IO[str], most_bytes: int
    ) -> None:
        self._source = source
        self._cleaning = cleaning
        self._file = file
        self._most_bytes = most_bytes
        self._text_bytes = 0
        # Sums over the rows that were cleaned last, older ones counting less and less.
        self._rows = self._row_bytes = self._documents = self._of_text = 0.0

    @property
    def full(self) -> bool:
        """Whether nothing more is wanted."""
        return self._text_bytes >= self._most_bytes

    def add(self, row: Row, progress: float) -> _Size:
        """Clean the row, unless there is enough text for this share of the source (0 to 1).

        Returns:
            What the row holds; where it is not cleaned, what to expect after those before it.
        """
        size = row_bytes(row)
        if self._rows and self._text_bytes >= self._most_bytes * progress:
            text_share = self._of_text / max(1.0, self._row_bytes)
            return _Size(1, self._documents / self._rows, size * text_share)
        texts = [text for _, text in self._cleaned(row)]
        text_bytes = sum(len(text.encode()) for text in texts)
        self._file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        self._text_bytes += text_bytes
        self._rows = self._rows * _MEMORY + 1
        self._row_bytes = self._row_bytes * _MEMORY + size
        self._documents = self._documents * _MEMORY + len(texts)
        self._of_text = self._of_text * _MEMORY + text_bytes
        return _Size(1, len(texts), text_bytes)

    def _cleaned(self, row: Row) -> Iterator[tuple[Row, str]]:
        field = self._source.required[0]
        return clean_rows([row], self._source.files, field, self._cleaning, Counter())


def _count_stream(source: RowSource, section: TextSource, sample: _Sample) -> _Size | None:
    """What a source of unknown size holds; None if the sample is full before its end.

    With a limit it is taken for large enough to reach it.
    """
    found = _Size()
    for row in islice(source.rows(), section.max_documents):
        if sample.full:
            shares = _shares_within_limits(section, found)
            return found.times(min(shares)) if shares else None
        found += sample.add(row, 1.0)
    return found


def _shares_within_limits(section: TextSource, found: _Size) -> list[float]:
    """How many times as much each of the source's limits allows."""
    limits = (section.max_documents, found.rows), (section.max_bytes, found.text_bytes)
    return [limit / max(1.0, there) for limit, there in limits if limit]


def _count_files(
    source: RowSource, sizes: Sequence[int], section: TextSource, sample: _Sample
) -> _Size:
    """What all files hold, from what is read of some of them."""
    count = min(_FILES, len(sizes))
    chosen = [i * len(sizes) // count for i in range(count)]
    of_chosen = max(1, sum(sizes[file] for file in chosen))
    share = min(1.0, READ_BYTES / of_chosen)
    most_rows = section.max_documents or math.inf
    whole, position = _Size(), 0
    for file in chosen:
        found, begin = _Size(), position
        for row in _beginning(source.rows_of_file(file), share * sizes[file]):
            position += row.read
            rows = whole.rows + found.rows + 1
            progress = max(position / (share * of_chosen), rows / most_rows)
            found += sample.add(row, progress)
            if rows >= most_rows:
                return whole + found
        whole += found.times(sizes[file] / max(1, position - begin))
    return whole.times(sum(sizes) / of_chosen)


def _beginning(rows: Iterable[Row], most: float) -> Iterator[Row]:
    """The rows that lie in the first `most` bytes of a file, in whole blocks of its reader.

    A reader's position jumps when it reads a block, ahead of the rows that it yields; so it is
    right for the rows before a jump.
    """
    read = 0
    for row in rows:
        if row.read and read >= most:
            return
        read += row.read
        yield row
