"""Filters: each keeps a document, or drops it and says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tallyformer.data.documents import Document

Verdict = tuple[bool, str]
Filter = Callable[[Document], Verdict]

KEEP: Verdict = (True, "")
INVALID_UTF8 = "invalid_utf8"
TOO_LONG = "too_long"
DUPLICATE = "duplicate"


def length_filter(min_chars: int, max_chars: int) -> Filter:
    """Keep documents of `min_chars` to `max_chars` characters."""

    def verdict(document: Document) -> Verdict:
        size = len(document.text)
        if size == 0:
            return False, "empty"
        if size < min_chars:
            return False, "too_short"
        return (False, TOO_LONG) if size > max_chars else KEEP

    return verdict


def first_objection(document: Document, filters: Sequence[Filter]) -> Verdict:
    """The first filter's objection to a document, or `KEEP`."""
    for each in filters:
        verdict = each(document)
        if not verdict[0]:
            return verdict
    return KEEP
