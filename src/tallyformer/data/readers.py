"""One reader a kind of file: each yields the rows of one local file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from tallyformer.data.files import (
    CSV_KINDS,
    JSON_KINDS,
    TEXT_KINDS,
    is_compressed,
    kind_of,
    open_bytes,
)
from tallyformer.data.json_rows import BOM, json_rows
from tallyformer.data.rows import Payload, Row, columns_of
from tallyformer.errors import DataError

LINE_BYTES = 1 << 28
"""A row of this many bytes is always read, longer ones only if a text may be as long: one file
cannot fill the memory."""
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_Rows = Iterator[tuple[int, Payload, int]]
"""Number, payload and position in the file's bytes after it."""


def read_file(
    path: Path,
    *,
    file: int,
    label: str,
    required: Sequence[str],
    optional: Sequence[str] = (),
    either: Sequence[Sequence[str]] = (),
    max_text_bytes: int | None = None,
) -> Iterator[Row]:
    """The rows of one file, in order.

    A .txt or .md file is one row with the first required field alone; an empty file has none.

    Args:
        path: the file.
        file: its number within the source.
        label: its name in errors and document names.
        required: fields that must be there; CSV and Parquet are checked before the first row.
        optional: fields that are read where the file has them.
        either: groups of fields; a CSV or Parquet file has all of one group.
        max_text_bytes: no text is longer. Of a .txt or .md file that is larger the text is not
            given (payload None); a row of JSON may have 4 times as many, as it may spell
            characters out and has other fields.

    Raises:
        DataError: the file is missing, damaged or lacks a field.
    """
    kind = kind_of(path)
    longest = max(LINE_BYTES, 4 * (max_text_bytes or 0))
    if kind in TEXT_KINDS:
        yield from _read_text(path, file, required[0], max_text_bytes)
        return
    if kind in JSON_KINDS:
        rows = _read_json(path, label, longest)
    elif kind in CSV_KINDS:
        rows = _read_csv(
            path,
            label,
            lambda header: columns_of(header, label, required, optional, either),
            longest,
            _DELIMITERS[kind],
        )
    else:
        # Its library takes 30 MB and 0.1 seconds, which runs on other kinds need not pay.
        from tallyformer.data.parquet import read_parquet

        rows = read_parquet(path, label, required, optional, either)
    before = 0
    for number, payload, position in rows:
        yield Row(file, number, payload, max(0, position - before))
        before = max(before, position)


def _read_text(path: Path, file: int, field: str, max_text_bytes: int | None) -> Iterator[Row]:
    """One row, or none if the file is empty."""
    with open_bytes(path) as (stream, _):
        size = path.stat().st_size
        if max_text_bytes is not None and size > max_text_bytes and not is_compressed(path):
            yield Row(file, 0, None, size)
            return
        most = -1 if max_text_bytes is None else max_text_bytes + len(BOM) + 1
        text = stream.read(most).removeprefix(BOM)
        if max_text_bytes is not None and len(text) > max_text_bytes:
            yield Row(file, 0, None, size)
        elif text:
            yield Row(file, 0, {field: text}, size)


def _read_json(path: Path, label: str, longest: int) -> _Rows:
    with open_bytes(path) as (stream, raw):
        for number, text in json_rows(stream, label, longest):
            yield number, text, raw.tell()


def _read_csv(
    path: Path,
    label: str,
    wanted: Callable[[Sequence[str]], list[str]],
    longest: int,
    delimiter: str,
) -> _Rows:
    with open_bytes(path) as (stream, raw), _as_text(stream) as text, _long_fields(longest):
        rows = csv.reader(_csv_lines(text, label, longest), strict=True, delimiter=delimiter)
        number = 0
        try:
            header = next(rows, None)
            if header is None:
                return
            columns = [(name, header.index(name)) for name in wanted(header)]
            for number, row in enumerate(rows, start=1):
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{label}:{number}: {len(row)} columns, the header has {len(header)}. "
                        "Fix or remove that row"
                    )
                values = {n: row[c].encode("utf-8", "surrogateescape") for n, c in columns}
                yield number, values, raw.tell()
        except csv.Error as error:
            raise DataError(
                f"{label}:{number + 1}: not valid CSV ({error}). Fix or remove that row"
            ) from None


def _csv_lines(text: io.TextIOWrapper, label: str, longest: int) -> Iterator[str]:
    """Lines of bounded length, each without a byte order mark at its beginning.

    Inside a quoted field that begins a line it goes too; cleaning would remove it there anyway.
    """
    for number, line in enumerate(iter(lambda: text.readline(longest + 1), ""), start=1):
        if len(line) > longest:
            raise DataError(f"{label}: line {number} is longer than {longest} characters. Split it")
        yield line.lstrip("\ufeff")


def _as_text(stream: IO[bytes]) -> io.TextIOWrapper:
    """Bytes that are not UTF-8 survive as surrogates until their row is checked."""
    return io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")


class _long_fields:  # noqa: N801
    """Raises the csv module's limit on a field's length while a file is read."""

    def __init__(self, longest: int) -> None:
        self._longest = min(longest, 2**31 - 1)

    def __enter__(self) -> None:
        self._before = csv.field_size_limit(self._longest)

    def __exit__(self, *_: object) -> None:
        csv.field_size_limit(self._before)
