"""Every error a user can cause, in one tree; its exit status beside each class.

    TallyFormerError             3  base class; the command line prints it as one line
    ├── UsageError               2  the command, the call or the recipe is wrong
    │   ├── ConfigError          2  a recipe key or value; carries every problem found at once
    │   ├── InvalidIdError       2  what is not a token id; also a ValueError
    │   └── InvalidRequestError  2  a prompt or a sampling parameter; also a ValueError
    └── RunError                 3  something outside the command is wrong
        ├── DataError            3  an input file, a row, a document
        │   └── InvalidTextError 3  text that is not UTF-8
        ├── ArtifactError        3  a folder or file written by an earlier stage
        │   └── CheckpointError  3  a checkpoint or weights: damaged, or of another model
        ├── TokenizerError       3  a tokenizer that is missing or does not fit
        ├── TrainingError        3  a run that cannot continue, as with a loss that is not finite
        └── Interrupted          128 + the signal's number, after everything has been saved

Each message says what is wrong, where, and how to fix it: one line, and one more for each problem
where several are listed.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Interrupted",
    "InvalidIdError",
    "InvalidRequestError",
    "InvalidTextError",
    "RunError",
    "TallyFormerError",
    "TokenizerError",
    "TrainingError",
    "UsageError",
]


class TallyFormerError(Exception):
    """Base of every error this package raises on purpose. `exit_status` is the process's."""

    exit_status = 3


class UsageError(TallyFormerError):
    """The command line or the recipe asks for something that does not exist or does not fit."""

    exit_status = 2


class ConfigError(UsageError):
    """A recipe is wrong. The message lists every problem, each on its own line after the first."""


class InvalidIdError(UsageError, ValueError):
    """Something that is not an id of the vocabulary. Also a `ValueError`, as callers expect."""


class InvalidRequestError(UsageError, ValueError):
    """A prompt or a sampling parameter is out of range. Also a `ValueError`, as callers expect."""


class RunError(TallyFormerError):
    """Something the command depends on is missing, damaged or full."""


class DataError(RunError):
    """An input file or row cannot be used."""


class InvalidTextError(DataError):
    """A text is not valid UTF-8; a recipe may drop such rows."""


class ArtifactError(RunError):
    """What an earlier stage wrote is missing, damaged or belongs to another run."""


class CheckpointError(ArtifactError):
    """A checkpoint is damaged or does not fit the model."""


class TokenizerError(RunError):
    """A tokenizer is missing, damaged or does not fit the model."""


class TrainingError(RunError):
    """Training cannot continue."""


class Interrupted(RunError):  # noqa: N818 - the user wants it
    """The user or the system asked the process to stop; its work is saved and can be resumed."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number
