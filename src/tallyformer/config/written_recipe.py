"""The recipe that a run writes into its folder, with a checksum as its first line."""

from __future__ import annotations

import hashlib

_FIRST = "# Written by TallyFormer; without this line it may be changed. SHA-256 of the rest: "


def with_checksum(text: str) -> str:
    """A recipe with its checksum as a comment above it."""
    return f"{_FIRST}{_sha256(text)}\n{text}"


def check_checksum(text: str) -> None:
    """Compare a recipe with its checksum; one without passes.

    Raises:
        ValueError: it has changed since it was written.
    """
    first, _, rest = text.partition("\n")
    if first.startswith(_FIRST) and first.removeprefix(_FIRST).strip() != _sha256(rest):
        raise ValueError(
            "it is not as the run wrote it. If the change is yours, remove its first line; if not, "
            "give the recipe that the run began with"
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
