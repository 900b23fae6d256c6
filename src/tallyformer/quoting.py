"""How a message shows a value that it is about."""

from __future__ import annotations

import reprlib
from typing import Any

_LONGEST = 100
"""Letters of a value."""


def quoted(value: Any) -> str:
    """A value as a message quotes it: one line of at most 100 characters."""
    try:
        text = " ".join(reprlib.repr(value).split())
        return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    except ValueError:  # Python does not write out a whole number of thousands of digits
        return f"a number of {type(value).__name__}"
