"""Telling the name of something on the Hugging Face hub from a folder that is not there."""

from __future__ import annotations

import re
from pathlib import Path

RUNS = "runs"
"""Where runs lie by default; nobody's name on the hub is meant by it."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_LONGEST = 96


def could_be_hub_name(source: str) -> bool:
    """Whether `source`, which is not a local folder, may name something on the hub: `owner/name`.

    A path whose first folder is here, or is where runs lie, is a local one with a mistake in it.
    """
    owner, separator, _ = source.partition("/")
    is_local = bool(separator) and (owner == RUNS or Path(owner).exists())
    return not is_local and len(source) <= _LONGEST and _NAME.fullmatch(source) is not None
