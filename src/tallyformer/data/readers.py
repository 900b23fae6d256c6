"""One reader a kind of file: each yields the rows of one local file."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tallyformer.data.files import kind_of, open_bytes
from tallyformer.data.rows import Payload, Row, check_unique, missing_field
from tallyformer.errors import DataError

LINE_BYTES = 1 << 28
"""A line of JSON of so many bytes is always read, so that one file cannot fill the memory."""
_BOM = b"\xef\xbb\xbf"
_Rows = Iterator[tuple[int, Payload, int]]
"""Number, payload and position in the file's bytes after it."""


def read_file(
    path: Path,
    *,
    file: int,
    label: str,
    required: Sequence[str],
    optional: Sequence[str] = (),
    max_text_bytes: int | None = None,
) -> Iterator[Row]:
    """The rows of one file, in order.

    A .txt or .md file is one row with the first required field alone.

    Args:
        path: the file.
        file: its number within the source.
        label: its name in errors and document names.
        required: fields that must be there; CSV and Parquet are checked before the first row.
        optional: fields that are read where the file has them.
        max_text_bytes: no text is longer. A .txt or .md file that is larger is not read (payload
            None); a line of JSON may have 4 times as many, as it may spell characters out and
            has other fields.

    Raises:
        DataError: the file is missing, empty, damaged or lacks a field.
    """
    kind = kind_of(path)
    if kind in (".txt", ".md"):
        yield _read_text(path, file, required[0], max_text_bytes)
        return
    if kind == ".jsonl":
        rows = _read_json_lines(path, label, max(LINE_BYTES, 4 * (max_text_bytes or 0)))
    elif kind == ".csv":
        rows = _read_csv(path, label, required, optional)
    else:
        # Its library takes 30 MB and 0.1 seconds, which runs on other kinds need not pay.
        from tallyformer.data.parquet import read_parquet

        rows = read_parquet(path, label, required, optional)
    before = number = 0
    for number, payload, position in rows:
        yield Row(file, number, payload, max(0, position - before))
        before = max(before, position)
    if number == 0:
        raise DataError(f"{path}: has no rows. Remove it from the paths, or fetch it again")


def _read_text(path: Path, file: int, field: str, max_text_bytes: int | None) -> Row:
    with open_bytes(path) as (stream, _):
        size = path.stat().st_size
        if max_text_bytes is not None and size > max_text_bytes:
            return Row(file, 0, None, size)
        return Row(file, 0, {field: stream.read().removeprefix(_BOM)}, size)


def _read_json_lines(path: Path, label: str, longest: int) -> _Rows:
    with open_bytes(path) as (stream, raw):
        lines = iter(lambda: stream.readline(longest + 1), b"")
        for number, line in enumerate(lines, start=1):
            if len(line) > longest:
                raise DataError(
                    f"{label}:{number}: the line is longer than {longest} bytes. Write one JSON "
                    "object a line"
                )
            line = line.removeprefix(_BOM) if number == 1 else line
            if line.strip():
                yield number, line, raw.tell()


def _read_csv(path: Path, label: str, required: Sequence[str], optional: Sequence[str]) -> _Rows:
    with open_bytes(path) as (stream, raw), _as_text(stream) as text, _long_fields():
        rows = csv.reader(text, strict=True)
        number = 0
        try:
            header = next(rows, [])
            columns = _csv_columns(header, label, required, optional)
            for number, row in enumerate(rows, start=1):
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{label}:{number}: {len(row)} columns, the header has {len(header)}. "
                        "Mend or remove that row"
                    )
                values = {n: row[c].encode("utf-8", "surrogateescape") for n, c in columns}
                yield number, values, raw.tell()
        except csv.Error as error:
            raise DataError(
                f"{label}:{number + 1}: not valid CSV ({error}). Mend or remove that row"
            ) from None


def _as_text(stream: IO[bytes]) -> io.TextIOWrapper:
    """Bytes that are no UTF-8 survive as surrogates until their row is checked."""
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _csv_columns(
    header: Sequence[str], label: str, required: Sequence[str], optional: Sequence[str]
) -> list[tuple[str, int]]:
    for name in required:
        if name not in header:
            raise missing_field(label, name, header)
    columns = [n for n in (*required, *optional) if n in header]
    check_unique(columns, header, label)
    return [(n, header.index(n)) for n in columns]


class _long_fields:  # noqa: N801
    """Lifts the csv module's limit on a field's length while a file is read."""

    def __enter__(self) -> None:
        self._before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))

    def __exit__(self, *_: object) -> None:
        csv.field_size_limit(self._before)
