"""Every error a user can cause, in one tree.

    TallyFormerError              base class; the command line prints it as one line
    ├── UsageError       exit 2   the command or the recipe is wrong
    │   ├── ConfigError           a recipe key or value; carries every problem found at once
    │   ├── InvalidIdError        what is no token id, in `token_ids`
    │   └── InvalidRequestError   a prompt or a sampling parameter, in `inference.errors`
    └── RunError         exit 3   something outside the command is wrong
        ├── DataError             an input file, a row, a document
        │   └── InvalidTextError  text that is not UTF-8, in `data.rows`
        ├── ArtifactError         a folder or file written by an earlier stage
        │   └── CheckpointError   a checkpoint or weights: damaged, or of another model
        ├── TokenizerError        a tokenizer that is missing or does not fit
        ├── TrainingError         a run that cannot continue, for example a loss that is not finite
        └── Interrupted           SIGINT, SIGTERM or SIGHUP, after everything has been saved

Each message says what is wrong, where, and how to fix it: one line, and one more for each problem
where several are listed.
"""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Interrupted",
    "RunError",
    "TallyFormerError",
    "TokenizerError",
    "TrainingError",
    "UsageError",
    "shown",
]


class TallyFormerError(Exception):
    """Base of every error this package raises on purpose. `exit_status` is the process's."""

    exit_status = 3


class UsageError(TallyFormerError):
    """The command line or the recipe asks for something that does not exist or does not fit."""

    exit_status = 2


class ConfigError(UsageError):
    """A recipe is wrong. The message lists every problem, each on its own line after the first."""


class RunError(TallyFormerError):
    """Something the command depends on is missing, damaged or full."""


class DataError(RunError):
    """An input file or row cannot be used."""


class ArtifactError(RunError):
    """What an earlier stage wrote is missing, damaged or belongs to another run."""


class CheckpointError(ArtifactError):
    """A checkpoint is damaged or does not fit the model."""


class TokenizerError(RunError):
    """A tokenizer is missing, damaged or does not fit the model."""


class TrainingError(RunError):
    """Training cannot continue."""


class Interrupted(RunError):  # noqa: N818 - it is no mistake of anybody
    """The user or the system asked the process to stop; its work is saved and can be resumed."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number


_LONGEST = 100


def shown(value: Any) -> str:
    """A value as a message quotes it: one line of at most 100 characters."""
    try:
        text = " ".join(reprlib.repr(value).split())
        return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    except ValueError:  # Python does not write out a whole number of thousands of digits
        return f"a number of {type(value).__name__}"
