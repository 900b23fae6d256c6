"""Rows as they come from a file, and the text of their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tallyformer.data.documents import document_id
from tallyformer.errors import DataError, InvalidTextError

Payload = bytes | Mapping[str, Any] | None


class Row(NamedTuple):
    """One row, not parsed yet, so that the processes that clean it can do that too.

    Attributes:
        file: number of its file within the source.
        number: of the row in its file, from 1; 0 where the whole file is one document.
        payload: a line of JSON, or the fields by name (text or UTF-8 bytes); None for a file
            that was not read because it is larger than any document may be.
        read: what reading it took off the source's `sizes`.
        split_key: a prompt that decides the split, where a pair is read as one text.
    """

    file: int
    number: int
    payload: Payload
    read: int
    split_key: str | None = None


def fields_of(
    row: Row, file: str, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, str]:
    """The text of a row's fields; a field that is null is "", a table one line a row.

    Args:
        row: as read.
        file: name of its file, for errors.
        required: fields that each row must have.
        optional: fields that are left out of the result if the row has none.

    Raises:
        DataError: the row is not a JSON object, lacks a field, or a field is not text.
        InvalidTextError: a text is not valid UTF-8.
    """
    where = document_id(file, row.number)
    values = values_of(row, file)
    for name in required:
        if name not in values:
            raise missing_field(where, name, list(values))
    wanted = [*required, *(name for name in optional if name in values)]
    return {name: text_of(values[name], name, where) for name in wanted}


def values_of(row: Row, file: str) -> Mapping[str, Any]:
    """A row's fields as they were written.

    Raises:
        DataError: the row is not a JSON object.
        InvalidTextError: it is not valid UTF-8.
    """
    assert row.payload is not None
    if isinstance(row.payload, Mapping):
        return row.payload
    return _parse(row.payload, document_id(file, row.number))


OF_A_TEXT, OF_A_PAIR = "text_field", "prompt_field and response_field (or messages_field)"
"""The keys of a source that name fields."""


def missing_field(
    where: str, name: str, present: Sequence[str], keys: str = OF_A_TEXT
) -> DataError:
    """The error for a row or file without a field that the recipe names, or means by default.

    Args:
        where: the row or the file.
        name: the field.
        present: the fields that are there.
        keys: the keys of the source with which the recipe names such fields.
    """
    found = ", ".join(map(repr, present)) or "none"
    return DataError(
        f"{where}: no field {name!r}; there are {found}. Name the right field in the recipe's "
        f"source: {keys}"
    )


def _parse(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        values = json.loads(_decode(line, where))
    except json.JSONDecodeError as error:
        raise bad_json(where, f"{error.msg} at column {error.colno}") from None
    except RecursionError:
        raise bad_json(where, "nested too deeply") from None
    except ValueError:
        raise bad_json(where, "a number has too many digits") from None
    if not isinstance(values, dict):
        raise DataError(
            f"{where}: a {type(values).__name__}, not an object with fields. Write each row as "
            '{"text": "..."} on its own line'
        )
    return values


def bad_json(where: str, reason: str) -> DataError:
    """The error for a row that cannot be parsed."""
    return DataError(f"{where}: not valid JSON ({reason}). Fix or remove that row")


def row_bytes(row: Row) -> int:
    """About the bytes of a row: its line, or its fields together; 0 where it was not read."""
    if isinstance(row.payload, bytes):
        return len(row.payload)
    if row.payload is None:
        return 0
    return sum(len(value) for value in row.payload.values() if isinstance(value, str | bytes))


def text_of(value: Any, name: str, where: str) -> str:
    """The text of a field: "" for null, a line a row for a table.

    Raises:
        DataError: it is not text.
        InvalidTextError: it is not valid UTF-8.
    """
    if value is None:
        return ""
    if isinstance(value, bytes):
        return _decode(value, where)
    if _is_table(value):
        value = "\n".join(" | ".join(str(cell) for cell in cells) for cells in value)
    if not isinstance(value, str):
        raise DataError(
            f"{where}: field {name!r} is of type {type(value).__name__}, not text. Name a "
            "field that holds text"
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"{where}: field {name!r} has a lone surrogate at character {error.start}, which is "
            "not valid UTF-8. Fix the row"
        ) from None
    return value


def _is_table(value: Any) -> bool:
    """A list of rows, each a list of texts and numbers."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(cells, list) for cells in value)
        and all(isinstance(cell, str | int | float) for cells in value for cell in cells)
    )


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidTextError(
            f"{where}: not valid UTF-8 at byte {error.start}. Convert the file to UTF-8"
        ) from None


def columns_of(
    header: Sequence[str],
    label: str,
    required: Sequence[str],
    optional: Sequence[str],
    either: Sequence[Sequence[str]] = (),
) -> list[str]:
    """The columns to read of a table.

    Args:
        header: names of all its columns.
        label: its name, for errors.
        required: columns that must be there.
        optional: columns that are read where they are there.
        either: groups of columns; all of one group must be there.

    Raises:
        DataError: a column is missing, or there twice.
    """
    wanted = [*required, *(either[0] if either and not _one_is_there(either, header) else ())]
    for name in wanted:
        if name not in header:
            raise missing_field(label, name, header, _keys(required, either))
    named = dict.fromkeys([*required, *(n for group in either for n in group), *optional])
    columns = [name for name in named if name in header]
    check_unique(columns, header, label)
    return columns


def _keys(required: Sequence[str], either: Sequence[Sequence[str]]) -> str:
    if either or len(required) > 1:
        return OF_A_PAIR
    return f"{OF_A_TEXT} (or messages_field)"


def _one_is_there(groups: Sequence[Sequence[str]], header: Sequence[str]) -> bool:
    return any(all(name in header for name in group) for group in groups)


def check_unique(columns: Sequence[str], header: Sequence[str], label: str) -> None:
    """Refuse a header that has one of the columns twice."""
    for name in columns:
        if header.count(name) > 1:
            raise DataError(
                f"{label}: has {header.count(name)} columns {name!r}. Rename all but one"
            )
