"""Guessing what follows from what the text had before. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST, SHORTEST = 3, 2
"""Ids at the end that are looked for."""


def look_up(ids: Sequence[int], most: int) -> list[int]:
    """What followed where the newest ids stood before: the longest and latest such place.

    One equal id is not enough to expect another, so at least `SHORTEST` have to be the same.

    Args:
        ids: the text so far.
        most: ids that are wanted at most.
    """
    if most <= 0:
        return []
    for length in range(LONGEST, SHORTEST - 1, -1):
        end = list(ids[-length:])
        for start in range(len(ids) - length - 1, -1, -1):
            if ids[start] == end[0] and list(ids[start : start + length]) == end:
                return list(ids[start + length : start + length + most])
    return []
