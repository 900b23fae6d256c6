"""Rows to documents: the field is read, the text normalised, the filters asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tallyformer.config.data import PrepareSection
from tallyformer.data.documents import Document, document_id
from tallyformer.data.filters import INVALID_UTF8, TOO_LONG, first_objection, length_filter
from tallyformer.data.normalize import Form, normalize
from tallyformer.data.rows import InvalidTextError, Row, fields_of


@dataclass(frozen=True)
class Cleaning:
    """What of a recipe decides which documents there are and in which split each is."""

    form: Form
    min_chars: int
    max_chars: int
    drop_invalid: bool
    validation_fraction: float
    seed: int

    @classmethod
    def of(cls, section: PrepareSection, seed: int) -> Cleaning:
        """The part of a `prepare` section that concerns single documents."""
        return cls(
            form=section.normalization,
            min_chars=section.min_chars,
            max_chars=section.max_chars,
            drop_invalid=section.on_invalid_utf8 == "drop",
            validation_fraction=section.validation_fraction,
            seed=seed,
        )


def clean_rows(
    rows: Iterable[Row],
    files: Sequence[str] | Mapping[int, str],
    field: str,
    source: str,
    cleaning: Cleaning,
    dropped: Counter[str],
) -> Iterator[tuple[Row, Document]]:
    """The documents that pass the filters; the others are counted in `dropped`.

    Args:
        rows: as read.
        files: names of the rows' files, by number.
        field: the field that holds the text.
        source: the source's name.
        cleaning: how.
        dropped: gets the number of dropped rows by reason.

    Raises:
        DataError: a row cannot be used; invalid UTF-8 counts only if it is not to be dropped.
    """
    filters = [length_filter(cleaning.min_chars, cleaning.max_chars)]
    for row in rows:
        if row.payload is None:
            dropped[TOO_LONG] += 1
            continue
        file = files[row.file]
        try:
            text = fields_of(row, file, (field,))[field]
        except InvalidTextError:
            if not cleaning.drop_invalid:
                raise
            dropped[INVALID_UTF8] += 1
            continue
        name = document_id(file, row.number)
        document = Document(name, source, normalize(text, cleaning.form))
        kept, reason = first_objection(document, filters)
        if kept:
            yield row, document
        else:
            dropped[reason] += 1
