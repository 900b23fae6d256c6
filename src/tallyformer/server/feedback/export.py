"""Rated answers as files that a recipe reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import atomic_file
from tallyformer.server.feedback.store import RatedAnswer

PAIRS = "pairs.jsonl"
PREFERENCES = "preferences.jsonl"


def export_feedback(rated: Iterable[RatedAnswer], folder: Path) -> dict[str, int]:
    """Write what can be learnt from.

    `pairs.jsonl` has a conversation a line, in the field `messages`, that ends with an answer that
    was corrected or rated up. `preferences.jsonl` has `messages`, `chosen` and `rejected` for each
    answer that was corrected.

    Args:
        rated: all rated answers.
        folder: made if it is not there; files of these names are replaced.

    Returns:
        Lines by file.
    """
    kept = list(rated)
    folder.mkdir(parents=True, exist_ok=True)
    return {
        PAIRS: _write(folder / PAIRS, _pairs(kept)),
        PREFERENCES: _write(folder / PREFERENCES, _preferences(kept)),
    }


def _pairs(rated: list[RatedAnswer]) -> Iterator[dict[str, Any]]:
    for one in rated:
        good = one.corrected or (one.answer if one.rating == "up" else "")
        if good.strip():
            yield {"messages": [*one.messages, {"role": "assistant", "content": good}]}


def _preferences(rated: list[RatedAnswer]) -> Iterator[dict[str, Any]]:
    for one in rated:
        if one.corrected and one.corrected != one.answer:
            yield {"messages": one.messages, "chosen": one.corrected, "rejected": one.answer}


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    with atomic_file(path, "w") as file:
        file.writelines(lines)
    return len(lines)
