"""What a run that cannot go on tells: what happened, where, and the ways on.

A run folder takes only the settings that it was begun with, so changed ones need another.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tallyformer.config.training import TrainSection
from tallyformer.errors import TrainingError

_ANOTHER_RUN = "another run: give it another --out, or delete this stage's folder"


def not_finite(
    where: str, what: str, documents: str, last: Path | None, resume_command: str
) -> TrainingError:
    """The error of a loss or gradient that is not a number.

    Args:
        where: stage and step.
        what: is not finite.
        documents: what the step was about.
        last: the newest checkpoint.
        resume_command: goes on from it with the same settings.
    """
    kept = "There is no checkpoint yet"
    if last is not None:
        kept = f"The last good checkpoint is {last}; the same settings go on with: {resume_command}"
    return TrainingError(
        f"{where}: {what} is not finite (documents: {documents}). Look at these documents; others, "
        f"or a lower optimizer.learning_rate, are {_ANOTHER_RUN}. {kept}"
    )


@contextlib.contextmanager
def memory_errors(
    where: Callable[[], str], section: TrainSection, resume_command: str
) -> Iterator[None]:
    """Raise torch's want of memory as an error that says what to change.

    Raises:
        TrainingError: the device's or the machine's memory is full.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_about_memory(error):
            raise
        asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
        amount = f" ({asked[1]} more were asked for)" if asked else ""
        raise TrainingError(
            f"{where()}: out of memory{amount}. {_smaller_batches(section)}; that is "
            f"{_ANOTHER_RUN}. Where more memory is free, the same settings go on with: "
            f"{resume_command}"
        ) from None


def _is_about_memory(error: RuntimeError) -> bool:
    words = r"out of memory|can't allocate memory|not enough memory|STATUS_ALLOC_FAILED"
    return isinstance(error, torch.OutOfMemoryError) or bool(re.search(words, str(error)))


def _smaller_batches(section: TrainSection) -> str:
    """The same step in the largest smaller parts."""
    rows, count = section.micro_batch, section.gradient_accumulation
    if rows == 1:
        return "micro_batch is 1 already; use a smaller model or a shorter context"
    parts = next(n for n in range(2, rows + 1) if rows % n == 0)
    return (
        f"Set micro_batch: {rows // parts} and gradient_accumulation: {count * parts}, the same "
        "step in smaller parts"
    )
