"""Filters: each keeps a text, or drops it and says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Verdict = tuple[bool, str]
Filter = Callable[[str], Verdict]

KEEP: Verdict = (True, "")
EMPTY = "empty"
TOO_SHORT = "too_short"
INVALID_UTF8 = "invalid_utf8"
TOO_LONG = "too_long"
DUPLICATE = "duplicate"
BEYOND_MAX_BYTES = "beyond_max_bytes"


def length_filter(min_chars: int, max_chars: int) -> Filter:
    """Keep texts of `min_chars` to `max_chars` characters."""

    def verdict(text: str) -> Verdict:
        size = len(text)
        if size == 0:
            return False, EMPTY
        if size < min_chars:
            return False, TOO_SHORT
        return (False, TOO_LONG) if size > max_chars else KEEP

    return verdict


def first_objection(text: str, filters: Sequence[Filter]) -> Verdict:
    """The first filter's objection to a text, or `KEEP`."""
    for each in filters:
        verdict = each(text)
        if not verdict[0]:
            return verdict
    return KEEP
