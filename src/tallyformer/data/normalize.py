"""Making equal texts equal: Unicode form, line ends, and characters that mean nothing."""

from __future__ import annotations

import unicodedata
from typing import Literal

Form = Literal["NFC", "NFKC", "none"]


def normalize(text: str, form: Form) -> str:
    """Clean one text.

    Line ends become a line feed; NUL and byte order marks go; white space around the text goes.

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
            text = unicodedata.normalize(form, text)
    return text.strip()
