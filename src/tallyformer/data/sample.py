"""A bounded sample of training text, to learn a vocabulary from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tallyformer.data.cleaning import Cleaning, clean_rows
from tallyformer.data.hashing import content_hash, in_validation
from tallyformer.data.sources import RowSource


def training_sample(
    sources: Sequence[RowSource], cleaning: Cleaning, max_bytes: int
) -> Iterator[str]:
    """Texts of the training split, each once, about `max_bytes` in all.

    Every source gives an equal part, and within a source every file; what a small one cannot
    give is left to those after it. Validation documents are never among them.

    Raises:
        DataError: an input cannot be used.
    """
    seen: set[bytes] = set()
    left = float(max_bytes)
    for number, source in enumerate(sources):
        of_source = left / (len(sources) - number)
        for file in range(len(source.files)):
            of_file = of_source / (len(source.files) - file)
            for text in _texts(source, file, cleaning, seen):
                if of_file <= 0:
                    break
                yield text
                size = len(text.encode())
                of_file, of_source, left = of_file - size, of_source - size, left - size


def _texts(source: RowSource, file: int, cleaning: Cleaning, seen: set[bytes]) -> Iterator[str]:
    rows, field = source.rows_of_file(file), source.required[0]
    for _, document in clean_rows(rows, source.files, field, source.name, cleaning, Counter()):
        digest = content_hash(document.text)
        if digest not in seen and not in_validation(
            digest, fraction=cleaning.validation_fraction, seed=cleaning.seed
        ):
            seen.add(digest)
            yield document.text
