"""What a run that cannot continue says: what happened, where, and the commands that help.

A run folder takes only the settings that it was begun with, so changed ones start a stage again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tallyformer.artifacts.system_errors import is_lack_of_memory
from tallyformer.config.training import TrainSection
from tallyformer.errors import TrainingError

Restart = Callable[[Mapping[str, Any]], str]
"""Changed keys of the stage's section of the recipe, to the command that starts again with them."""


def not_finite(
    where: str, what: str, *, documents: str, last: Path | None, rate: float, restart: Restart
) -> TrainingError:
    """The error of a loss or gradient that is not a number.

    The same settings would come to the same end, so no command is given that resumes with them.

    Args:
        where: stage and step.
        what: is not finite.
        documents: what the step was about.
        last: the newest checkpoint.
        rate: `optimizer.learning_rate`.
    """
    kept = f"The last good checkpoint is {last}" if last else "There is no checkpoint yet"
    lower = float(f"{rate / 10:.3g}")
    return TrainingError(
        f"{where}: {what} is not finite (documents: {documents}). {kept}. Look at these "
        "documents, or start this stage again with a lower optimizer.learning_rate: "
        f"{restart({'optimizer.learning_rate': lower})}"
    )


@contextlib.contextmanager
def memory_errors(
    where: Callable[[], str], section: TrainSection, resume_command: str, restart: Restart
) -> Iterator[None]:
    """Raise torch's lack of memory as an error that says what to change.

    Raises:
        TrainingError: the device's or the machine's memory is full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_lack_of_memory(error):
            raise
        asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
        amount = f" ({asked[1]} more were asked for)" if asked else ""
        raise TrainingError(
            f"{where()}: out of memory{amount}. {_smaller_batches(section, restart)}. Where more "
            f"memory is free, resume with: {resume_command}"
        ) from None


def _smaller_batches(section: TrainSection, restart: Restart) -> str:
    """The same step in the largest smaller parts."""
    rows, count = section.micro_batch, section.gradient_accumulation
    if rows == 1:
        return "micro_batch is 1 already; use a smaller model or a shorter context"
    parts = next(n for n in range(2, rows + 1) if rows % n == 0)
    changes = {"micro_batch": rows // parts, "gradient_accumulation": count * parts}
    return (
        "Start this stage again with the same step in smaller parts, and once more if they are "
        f"still too large: {restart(changes)}"
    )
