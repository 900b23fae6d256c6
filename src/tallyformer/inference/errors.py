"""What a caller of the inference API can get wrong."""

from __future__ import annotations

import reprlib
from typing import Any

from tallyformer.errors import UsageError


class InvalidRequestError(UsageError, ValueError):
    """A prompt or a sampling parameter is out of range. Also a `ValueError`, as callers expect."""


_LONGEST = 100


def shown(value: Any) -> str:
    """A value as a message quotes it: one line of at most 100 characters."""
    try:
        text = " ".join(reprlib.repr(value).split())
        return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    except ValueError:  # Python does not write out a whole number of thousands of digits
        return f"a number of {type(value).__name__}"
