"""The rows of a file of JSON: an object a line, or one array of objects.

Which of the two it is, its first character says, whatever the file is called. Either way at most
one row and a piece of the file are in memory.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO

from tallyformer.data.rows import bad_json
from tallyformer.errors import DataError

BOM = b"\xef\xbb\xbf"
_PIECE = 1 << 16
_NO_SPACE = re.compile("[^ \\t\\n\\r\\ufeff]")
_NEAR_THE_END = 16
"""Characters; an error so near the end of what was read may be for lack of the rest: a literal or
an escape that is cut off."""


def json_rows(stream: IO[bytes], label: str, longest: int) -> Iterator[tuple[int, bytes]]:
    """Number and JSON text of each row; the number is the line, or the place in the array.

    A byte order mark at the beginning of the file, of a line or of an element is left out, so
    files that begin with one may have been joined.

    Args:
        stream: unpacked bytes.
        label: the file's name in errors.
        longest: bytes of a row.

    Raises:
        DataError: a row is longer, or an array is not valid JSON.
    """
    number, begin = 0, b""
    while not begin.strip() and (piece := stream.readline(_PIECE)):
        number, begin = number + 1, _without_bom(piece)
    if _begins_array(begin):
        yield from _elements(_Text(begin, stream), label, longest)
    else:
        yield from _lines(begin, number, stream, label, longest)


def _begins_array(begin: bytes) -> bool:
    """Whether a file that begins so is an array of objects, and not a list on a line of its own."""
    begin = begin.strip()
    return begin[:1] == b"[" and begin[1:].lstrip()[:1] in (b"", b"{", b"]")


def _lines(
    line: bytes, number: int, stream: IO[bytes], label: str, longest: int
) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, from one that has been read, perhaps not to its end."""
    while line:
        if not line.endswith(b"\n"):
            line += stream.readline(max(0, longest + 1 - len(line)))
        if len(line) > longest:
            raise _too_long(f"{label}:{number}", "line", longest)
        line = _without_bom(line)
        if line.strip():
            yield number, line
        line, number = stream.readline(longest + 1), number + 1


def _without_bom(line: bytes) -> bytes:
    while line.startswith(BOM):
        line = line.removeprefix(BOM)
    return line


def _too_long(where: str, what: str, longest: int) -> DataError:
    return DataError(
        f"{where}: the {what} is longer than {longest} bytes. Write one JSON object a line"
    )


class _Text:
    """A stream's text from a place on; more of it is read on demand.

    Bytes that are not UTF-8 become surrogates, which give them back when their row is checked.

    Attributes:
        text: what has been read and not been dropped.
        place: where in it the part that has not been taken begins.
        ended: whether the stream has.
    """

    def __init__(self, begin: bytes, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self.text = self._decode(begin)
        self.place = 0
        self.ended = False

    @property
    def left(self) -> int:
        """Characters that have been read and not been taken."""
        return len(self.text) - self.place

    def read_more(self) -> None:
        """As much again as is left, so that a long element is not parsed again too often."""
        piece = self._stream.read(max(_PIECE, self.left))
        self.ended = not piece
        self.text = self.text[self.place :] + self._decode(piece, final=self.ended)
        self.place = 0

    def next_character(self) -> str:
        """The first character that is not a space; "" at the end."""
        while True:
            found = _NO_SPACE.search(self.text, self.place)
            if found:
                self.place = found.start()
                return found.group()
            self.place = len(self.text)
            if self.ended:
                return ""
            self.read_more()

    def take(self, end: int) -> str:
        """The text up to `end`."""
        taken = self.text[self.place : end]
        self.place = end
        return taken


def _elements(source: _Text, label: str, longest: int) -> Iterator[tuple[int, bytes]]:
    """The elements of one array after another."""
    number = 0
    while opening := source.next_character():
        if opening != "[":
            raise bad_json(f"{label}:{number}", "more text after the end of the array")
        source.place += 1
        if source.next_character() == "]":
            source.place += 1
            continue
        follows = ","
        while follows == ",":
            number += 1
            yield number, _element(source, f"{label}:{number}", longest)
            follows = source.next_character()
            source.place += 1
        if follows != "]":
            reason = "a comma is missing" if follows else "the array does not end"
            raise bad_json(f"{label}:{number}", f"{reason} behind it")


def _element(source: _Text, where: str, longest: int) -> bytes:
    """Take the next value off the text."""
    decoder = json.JSONDecoder()
    source.next_character()
    while True:
        try:
            _, end = decoder.raw_decode(source.text, source.place)
        except json.JSONDecodeError as error:
            cut_off = error.msg.startswith("Unterminated string") or (
                error.pos >= len(source.text) - _NEAR_THE_END
            )
            if source.ended or not cut_off:
                raise bad_json(where, error.msg) from None
        except RecursionError:
            raise bad_json(where, "nested too deeply") from None
        except ValueError:
            raise bad_json(where, "a number has too many digits") from None
        else:
            if end < len(source.text) or source.ended:  # a number may continue
                return source.take(end).encode("utf-8", "surrogateescape")
        if source.left > longest:
            raise _too_long(where, "row", longest)
        source.read_more()
