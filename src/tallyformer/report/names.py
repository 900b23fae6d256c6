"""Names of runs where there is little room."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_NAME = 20
"""Characters of a run's name that a legend or the head of a column has room for."""


def short_names(names: Sequence[str]) -> list[str]:
    """Names of runs that fit: both ends of long ones, numbered where they look alike."""
    half = LONGEST_NAME // 2
    short = [n if len(n) <= LONGEST_NAME else f"{n[: half - 1]}…{n[-half:]}" for n in names]
    if len(set(short)) < len(short):
        short = [f"{number}: {name}" for number, name in enumerate(short, start=1)]
    return short
