"""What a caller of the inference API can get wrong."""

from __future__ import annotations

import reprlib
from typing import Any

from tallyformer.errors import UsageError


class InvalidRequestError(UsageError, ValueError):
    """A prompt or a sampling parameter is out of range. Also a `ValueError`, as callers expect."""


def shown(value: Any) -> str:
    """A value as a message quotes it: one line, and not long."""
    try:
        return " ".join(reprlib.repr(value).split())
    except ValueError:  # Python does not write out a whole number of thousands of digits
        return f"a number of {type(value).__name__}"
