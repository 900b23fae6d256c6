"""Texts from files and names, so that they can be sent and shown."""

from __future__ import annotations

import os
from typing import Any


def plain(text: str) -> str:
    """A text that UTF-8 can hold: JSON's escapes can make halves of characters."""
    return text.encode("utf-8", "replace").decode("utf-8")


def shown_text(value: Any, longest: int) -> str:
    """A value if it is a text, cut where it is long; "" for anything else."""
    if not isinstance(value, str):
        return ""
    return plain(value if len(value) <= longest else value[:longest] + "…")


def shown_name(name: str) -> str:
    """A file's name as text; bytes that are none are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
