"""Rows to documents: the field is read, the text normalised, the filters asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tallyformer.config.data import PrepareSection
from tallyformer.data.filters import INVALID_UTF8, TOO_LONG, first_objection, length_filter
from tallyformer.data.hashing import in_validation, prompt_in_validation
from tallyformer.data.normalize import Form, normalize
from tallyformer.data.rows import Row, fields_of
from tallyformer.errors import InvalidTextError


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

    def holds_out(self, row: Row, digest: bytes) -> bool:
        """Whether the document of a row belongs to the validation split.

        Args:
            row: its `split_key` decides, where it has one.
            digest: hash of the document's text; else this decides.
        """
        fraction, seed = self.validation_fraction, self.seed
        if row.split_key is not None:
            return prompt_in_validation(row.split_key, fraction=fraction, seed=seed)
        return in_validation(digest, fraction=fraction, seed=seed)


def clean_rows(
    rows: Iterable[Row],
    files: Sequence[str] | Mapping[int, str],
    field: str,
    cleaning: Cleaning,
    dropped: Counter[str],
) -> Iterator[tuple[Row, str]]:
    """Rows with their texts, normalised, that pass the filters; others are counted in `dropped`.

    Args:
        rows: as read.
        files: names of the rows' files, by number.
        field: the field that holds the text.
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
        except InvalidTextError as error:
            if not cleaning.drop_invalid:
                raise InvalidTextError(
                    f"{error}; prepare can leave such rows out (on_invalid_utf8: drop)"
                ) from None
            dropped[INVALID_UTF8] += 1
            continue
        text = normalize(text, cleaning.form)
        kept, reason = first_objection(text, filters)
        if kept:
            yield row, text
        else:
            dropped[reason] += 1
