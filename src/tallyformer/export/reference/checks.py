"""What an import refuses: tensors that do not fit the model, and a folder that exists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tallyformer.artifacts.paths import usable_path
from tallyformer.errors import ArtifactError, CheckpointError


def compare(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], file: Path
) -> None:
    """Check that a file's tensors, under our names, are those of the model.

    Raises:
        CheckpointError: one is missing, too much or of another shape; the message names them.
    """
    problems = []
    if missing := sorted(set(expected) - set(found)):
        problems.append(f"missing {some(missing)}")
    if unexpected := sorted(set(found) - set(expected)):
        problems.append(f"unexpected {some(unexpected)}")
    wrong = [
        f"{name} {found[name]} instead of {expected[name]}"
        for name in sorted(set(expected) & set(found))
        if expected[name] != found[name]
    ]
    if wrong:
        problems.append(f"wrong shape {some(wrong)}")
    if problems:
        raise CheckpointError(
            f"{file}: its tensors do not fit the model (our names): {'; '.join(problems)}. "
            "The file belongs to another configuration or is incomplete: copy it again."
        )


def some(names: list[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def refuse_existing(out: Path) -> None:
    """Nothing is overwritten.

    Raises:
        ArtifactError: `out` exists.
        UsageError: it is not a path.
    """
    if usable_path(out).exists():
        raise ArtifactError(f"{out}: exists already. Choose another folder, or delete it first.")
