"""A bounded sample of training text, to learn a vocabulary from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from tallyformer.config.data import TextSource
from tallyformer.data.cleaning import Cleaning
from tallyformer.data.passages import SplitSource
from tallyformer.data.rows import Row
from tallyformer.data.sources import RowSource
from tallyformer.errors import DataError

LONGEST = 1 << 20
"""Characters of one document that are learnt from, so that no single one fills the memory."""


def training_sample(
    sources: Sequence[RowSource],
    limits: Sequence[TextSource],
    cleaning: Cleaning,
    max_bytes: int,
) -> Iterator[str]:
    """Texts of the training split, each once, about `max_bytes` in all.

    Every source gives an equal part, and within a source every file; what a small one cannot
    give is left to those after it. A source with a limit is read from its beginning, and no
    further than `prepare` reads it. Validation documents are never among them.

    Args:
        sources: readers.
        limits: their sections, in the same order.
        cleaning: how `prepare` cleans and splits.
        max_bytes: UTF-8 bytes of text; each file may go over its part by one document, of which
            at most `LONGEST` characters are taken.

    Raises:
        DataError: an input cannot be used, or no document is left.
    """
    seen: set[bytes] = set()
    left = float(max_bytes)
    for number, (source, section) in enumerate(zip(sources, limits, strict=True)):
        of_source = left / (len(sources) - number)
        split = SplitSource.of(source, section, cleaning)
        parts = _parts(source, section)
        for place, (rows, most) in enumerate(parts):
            of_file = of_source / (len(parts) - place)
            for text in _training_texts(source, rows, most, split, seen):
                if of_file <= 0:
                    break
                text = text[:LONGEST]
                yield text
                size = len(text.encode())
                of_file, of_source, left = of_file - size, of_source - size, left - size
    if not seen:
        raise DataError(
            "prepare: no document of any source is left to learn a vocabulary from. Give more "
            "text, or lower prepare.min_chars, which leaves out shorter documents"
        )


def _parts(source: RowSource, section: TextSource) -> list[tuple[Iterable[Row], float]]:
    """Rows that give equal parts, and how many bytes of text may be read of each."""
    if section.max_documents or section.max_bytes:
        rows = islice(source.rows(), section.max_documents)
        return [(rows, section.max_bytes or math.inf)]
    return [(source.rows_of_file(file), math.inf) for file in range(len(source.files))]


def _training_texts(
    source: RowSource, rows: Iterable[Row], most: float, split: SplitSource, seen: set[bytes]
) -> Iterator[str]:
    for document in split.documents(rows, source.files, source.required[0], Counter()):
        if document.digest not in seen and not document.held_out:
            seen.add(document.digest)
            yield document.text
        most -= len(document.text.encode())
        if most <= 0:
            return
