"""What a caller of the inference API can get wrong."""

from __future__ import annotations

from tallyformer.errors import UsageError


class InvalidRequestError(UsageError, ValueError):
    """A prompt or a sampling parameter is out of range. Also a `ValueError`, as callers expect."""
