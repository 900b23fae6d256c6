"""Telling the name of something on the Hugging Face hub from a folder that is not there."""

from __future__ import annotations


def could_be_hub_name(source: str) -> bool:
    """Whether `source`, which is no local folder, may name something on the hub: `owner/name`."""
    parts = source.split("/")
    return len(parts) <= 2 and all(parts) and not source.startswith((".", "~"))
