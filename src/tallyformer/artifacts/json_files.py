"""Reading JSON whatever is in the file, and files of JSON that carry their own checksum.

A checked file is an object whose `check` is the SHA-256 of the canonical JSON of all the rest, so
any damage that changes a value is seen by whoever reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.system_errors import advice_on_reading
from tallyformer.errors import ArtifactError, RunError

CHECK = "check"
MAX_DEPTH = 100
"""Lists and objects within each other that a file of ours may have; it has a tenth of them."""


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text, from a source that need not be JSON at all.

    Raises:
        ValueError: it is not JSON; the message is the reason in a few words.
    """
    try:
        return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"not JSON: {error.msg} at {place}" if text.strip() else "empty") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:  # more digits than Python converts
        raise ValueError("a number has too many digits") from None


def read_json(
    path: Path, *, fix: str, error: type[RunError] = ArtifactError, what: str = "damaged"
) -> dict[str, Any]:
    """The names and values of a file that holds one JSON object.

    Args:
        path: the file.
        fix: what helps, as the last sentence of the error.
        error: its type.
        what: what a file that cannot be understood is called.

    Raises:
        RunError: of type `error`; the file is missing, cannot be read, or is not a JSON object.
    """
    try:
        values = parse_json(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError(f"{_kind(values)} where names and values belong")
        check_depth(values)
    except FileNotFoundError:
        raise error(f"{path}: missing. {fix}") from None
    except OSError as failure:
        helps = advice_on_reading(failure, fix)
        raise error(f"{path}: cannot be read ({failure.strerror}). {helps}") from None
    except ValueError as reason:
        raise error(f"{path}: {what} ({reason}). {fix}") from None
    return values


def check_depth(value: Any) -> None:
    """Refuse what is nested so deeply that code which walks through it could fail.

    Raises:
        ValueError: there are more than `MAX_DEPTH` levels.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")


def digest(value: Any) -> str:
    """SHA-256 in hex of a value's canonical JSON; what JSON cannot hold counts as its text."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_checked_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object atomically, with its checksum as the last value.

    Raises:
        ArtifactError: it cannot be written.
    """
    plain = json.loads(json.dumps(values, default=str))
    write_json(path, {**plain, CHECK: digest(plain)})


def read_checked_json(
    path: Path, *, fix: str, error: type[RunError] = ArtifactError
) -> dict[str, Any]:
    """What `write_checked_json` wrote, without its checksum.

    Raises:
        RunError: of type `error`; as `read_json`, or a value has changed since it was written.
    """
    values = read_json(path, fix=fix, error=error)
    if values.pop(CHECK, None) != digest(values):
        raise error(f"{path}: damaged (its values do not match its checksum). {fix}")
    return values


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
