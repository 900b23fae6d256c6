"""Versions and time stamps for manifests."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform

PACKAGES = ("tallyformer", "torch", "transformers", "tokenizers", "tiktoken", "peft", "numpy")


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def utc_now() -> datetime.datetime:
    """The present time in UTC."""
    return datetime.datetime.now(datetime.UTC)
