"""A file of JSON objects, one a line, that a run appends to and that a checkpoint vouches for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import atomic_file
from tallyformer.artifacts.system_errors import cannot_write
from tallyformer.errors import ArtifactError

_WITHOUT = "Delete it to continue without these lines; nothing else needs them"


class RecordFile:
    """Appends lines; what a killed run wrote after its last checkpoint is dropped when it resumes.

    Args:
        path: the file.
        known: size and checksum of the lines that a checkpoint knows. None starts again.

    Raises:
        ArtifactError: those lines are damaged, or the file cannot be written.
    """

    def __init__(self, path: Path, known: Mapping[str, Any] | None) -> None:
        self._path = path
        kept = _known_lines(path, known) if known else b""
        with atomic_file(path) as file:
            file.write(kept)
        self._bytes, self._sha256 = len(kept), hashlib.sha256(kept)
        self._file = path.open("ab")

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line. Floats that are not finite are written as null, which JSON can hold.

        Raises:
            ArtifactError: the disk is full.
        """
        text = json.dumps(_finite(line)).encode() + b"\n"
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._bytes += len(text)
        self._sha256.update(text)

    def written(self) -> dict[str, Any]:
        """Size and checksum of all lines, which lie on the disk from now on."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from error
        return {"bytes": self._bytes, "sha256": self._sha256.hexdigest()}

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def whole_lines(path: Path, fix: str) -> list[bytes]:
    """All whole lines of a record; none if there is no file.

    A last line that a kill has torn is left out.

    Raises:
        ArtifactError: the file cannot be read; `fix` is the last sentence of the error.
    """
    try:
        *whole, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise damaged_record(path, error.strerror, fix) from None
    return whole


def damaged_record(path: Path, reason: str | None, fix: str) -> ArtifactError:
    """The error of a file whose lines are not what a run writes."""
    return ArtifactError(f"{path}: damaged ({reason}). {fix}")


def _known_lines(path: Path, known: Mapping[str, Any]) -> bytes:
    """The lines that a checkpoint knows; none if the user has deleted them."""
    try:
        with path.open("rb") as file:
            kept = file.read(known["bytes"])
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise damaged_record(path, error.strerror, _WITHOUT) from None
    if hashlib.sha256(kept).hexdigest() != known["sha256"]:
        reason = "its lines do not match the checkpoint's checksum"
        raise damaged_record(path, reason, _WITHOUT)
    return kept


def _finite(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and value - value != 0 else value
        for name, value in line.items()
    }
