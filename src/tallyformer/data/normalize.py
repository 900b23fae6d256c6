"""Making equal texts equal: Unicode form, line ends, and characters that mean nothing."""

from __future__ import annotations

import functools
import itertools
import unicodedata
from typing import Literal

import numpy as np

Form = Literal["NFC", "NFKC", "none"]
MOST_MARKS = 64
"""Ordering combining marks takes time with the square of their number; the longest sequences in
languages have fewer than 30 (Unicode Standard Annex 15, stream-safe text)."""
_SHORT = 4096
"""Characters; in so few the square does not matter."""
_LAST_MARK = 0x1FFFF
"""No character beyond it is a combining mark."""


def normalize(text: str, form: Form) -> str:
    """Clean one text.

    Line ends become a line feed; NUL and byte order marks go; white space around the text goes. Of
    more combining marks in sequence than `MOST_MARKS`, so many at a time are brought into order.

    Args:
        text: any text.
        form: Unicode normalisation form; "none" leaves code points as they are.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\x00" in text:
        text = text.replace("\x00", "")
    if not text.isascii():
        text = text.replace("\ufeff", "")
        if form != "none":
            pieces = _between_long_runs(text)
            text = "".join(unicodedata.normalize(form, piece) for piece in pieces)
    return text.strip()


def _between_long_runs(text: str) -> list[str]:
    """The text, cut inside runs of more combining marks than `MOST_MARKS`; one piece as a rule."""
    if len(text) <= _SHORT:
        return [text]
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    is_mark = _marks()[np.minimum(codes, _LAST_MARK)]
    if np.count_nonzero(is_mark) <= MOST_MARKS:
        return [text]
    others = np.concatenate([[-1], np.flatnonzero(~is_mark), [len(text)]])
    long = np.flatnonzero(np.diff(others) > MOST_MARKS + 1)
    ends: list[int] = []
    for begin, end in zip(others[long].tolist(), others[long + 1].tolist(), strict=True):
        ends += range(begin + 1 + MOST_MARKS, end, MOST_MARKS)
    return [text[a:b] for a, b in itertools.pairwise([0, *ends, len(text)])]


@functools.cache
def _marks() -> np.ndarray:
    """Which characters are combining marks, bool (_LAST_MARK + 1,)."""
    return np.array([unicodedata.combining(chr(code)) > 0 for code in range(_LAST_MARK + 1)])
