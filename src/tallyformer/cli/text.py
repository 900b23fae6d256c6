"""What is text: whatever UTF-8 can express."""

from __future__ import annotations


def is_text(value: str) -> bool:
    """Whether UTF-8 can express it; Python reads other bytes as lone surrogates."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
