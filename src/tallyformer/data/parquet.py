"""The rows of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tallyformer.data.files import unreadable
from tallyformer.data.rows import Payload, columns_of
from tallyformer.errors import DataError

_BATCH_ROWS = 256
_BATCH_BYTES = 1 << 26
_TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def read_parquet(
    path: Path,
    label: str,
    required: Sequence[str],
    optional: Sequence[str],
    either: Sequence[Sequence[str]] = (),
) -> Iterator[tuple[int, Payload, int]]:
    """The rows of one file, from 1: number, fields, position in the file's bytes.

    Raises:
        DataError: the file is damaged, or a field is missing or of numbers.
    """
    try:
        size = path.stat().st_size
        with pq.ParquetFile(path, pre_buffer=False) as file:
            columns = columns_of(file.schema_arrow.names, label, required, optional, either)
            _check_types(file.schema_arrow, columns, label)
            ends = _ends(file.metadata)
            number = 0
            rows = _rows_at_once(file.metadata)
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                values = [_values(batch.column(name)) for name in columns]
                for row in zip(*values, strict=True):
                    number += 1
                    fields = dict(zip(columns, row, strict=True))
                    yield number, fields, int(size * np.interp(number, *ends))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: damaged or no Parquet file ({reason}). Fetch the file again"
        ) from None


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """Rows of a batch: 256, or fewer where rows are so long that they would fill the memory."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    of_row = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, of_row)))


def _ends(metadata: pq.FileMetaData) -> tuple[np.ndarray, np.ndarray]:
    """Where row groups end: in rows, and as shares of the file; both begin with 0."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = np.cumsum([0, *(group.num_rows for group in groups)])
    sizes = np.cumsum([0, *(group.total_byte_size for group in groups)])
    return rows, sizes / max(1, sizes[-1])


def _check_types(schema: pa.Schema, columns: Sequence[str], label: str) -> None:
    for name in columns:
        if not _could_be_text(schema.field(name).type):
            raise DataError(
                f"{label}: field {name!r} is of type {schema.field(name).type}, not text. Name a "
                "field that holds text"
            )


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_text(value) for is_text in _TEXT_TYPES)


def _could_be_text(kind: pa.DataType) -> bool:
    """Text, nulls, or a table, whose rows are looked at one by one as those of JSON are."""
    return _is_text(kind) or pa.types.is_null(kind) or pa.types.is_nested(kind)


def _values(column: pa.Array) -> list[Any]:
    """Texts as UTF-8 bytes, so that invalid ones are found row by row; tables as lists."""
    if not _is_text(column.type):
        return [_nested(value) for value in column]
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[Any] = column.cast(pa.large_binary()).to_pylist()
    return values


def _nested(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return error.object  # bytes, which are refused when the row is looked at
