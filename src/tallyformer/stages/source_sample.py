"""A few documents of every source, and from them the size of the whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tallyformer.config import Recipe
from tallyformer.config.data import TextSource
from tallyformer.data.cleaning import Cleaning, clean_rows
from tallyformer.data.rows import Row
from tallyformer.data.sources import RowSource, text_source

_FILES = 8


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

    At most eight files of a source are read, spread evenly over it, each from its beginning.

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
    count = min(_FILES, len(source.files))
    chosen = [i * len(source.files) // count for i in range(count)]
    read = documents = text_bytes = 0
    with out.open("w", encoding="utf-8") as file:
        for number in chosen:
            counter = _Counted(source.rows_of_file(number))
            for text in _texts(counter, source, cleaning, most_bytes // count):
                file.write(json.dumps({"text": text}) + "\n")
                documents += 1
                text_bytes += len(text.encode())
            read += counter.read
    whole = source.size
    if whole is None:
        return SampledSource(section.name, out, section.max_documents, None)
    scale = whole / max(1, read)
    if section.max_documents:
        scale = min(scale, section.max_documents / max(1, documents))
    return SampledSource(section.name, out, round(documents * scale), round(text_bytes * scale))


def _texts(
    rows: Iterable[Row], source: RowSource, cleaning: Cleaning, most_bytes: int
) -> Iterator[str]:
    """Cleaned texts until they have `most_bytes`, but at least one."""
    field, taken = source.required[0], 0
    for _, document in clean_rows(rows, source.files, field, source.name, cleaning, Counter()):
        yield document.text
        taken += len(document.text.encode())
        if taken >= most_bytes:
            return


class _Counted:
    """Passes rows on and adds up what reading them took."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.read = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.read += row.read
            yield row
