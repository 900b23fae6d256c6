"""What a model wrote at each validation of its training, as `samples.jsonl` has it."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

from tallyformer.artifacts.json_files import parse_json
from tallyformer.artifacts.run_folder import SAMPLES
from tallyformer.monitor.inside import Inside, Unreadable, reason_of
from tallyformer.monitor.look import Version, version_of
from tallyformer.monitor.samples import SampleLook
from tallyformer.monitor.words import shown_text

MOST_STEPS = 1000
"""Validations that can be looked at, the newest ones."""
_MOST_BYTES = 4 << 20
"""That are read, from the end of the file."""
_MOST_SAMPLES = 16
_LONGEST = 4000
"""Characters of a prompt or a text."""
_LARGEST_STEP = 1 << 53
_MOST_KEPT = 8


@dataclass(frozen=True)
class WrittenLook:
    """What was written at one validation.

    Attributes:
        steps: of all validations that can be looked at, in their order.
        step: the one that this is; None where there is none.
        problem: why nothing can be read; "" if it can.
    """

    steps: list[int]
    step: int | None
    samples: list[SampleLook]
    problem: str = ""


class WrittenReader:
    """Reads the files of a folder of runs; one that has not changed is not read again."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._read = functools.lru_cache(_MOST_KEPT)(self._read_now)

    def look(self, folder: tuple[str, ...], step: int | None) -> WrittenLook:
        """One validation.

        Args:
            folder: names of the folder that the training writes to.
            step: which one; the last where it is None or is not there.
        """
        path = (*folder, SAMPLES)
        try:
            found = self._read(path, version_of(self._inside, *path))
        except FileNotFoundError:
            return WrittenLook([], None, [])
        except OSError as error:
            return WrittenLook([], None, [], f"{SAMPLES} {reason_of(error)}")
        except Unreadable as reason:
            return WrittenLook([], None, [], f"{SAMPLES} {reason}")
        if not found:
            return WrittenLook([], None, [])
        chosen = step if step in found else next(reversed(found))
        return WrittenLook(list(found), chosen, found[chosen])

    def _read_now(self, path: tuple[str, ...], version: Version) -> dict[int, list[SampleLook]]:
        with self._inside.file(*path) as file:
            text = _end_of(file)
        found: dict[int, list[SampleLook]] = {}
        # What follows the last end of a line is not whole yet.
        for line in text.split(b"\n")[:-1]:
            step, samples = _line(line)
            if step > next(reversed(found), -1):
                found[step] = samples
        return {step: found[step] for step in list(found)[-MOST_STEPS:]}


def _end_of(file: BinaryIO) -> bytes:
    """The last whole lines of a file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MOST_BYTES))
    text = file.read(_MOST_BYTES)
    return text if size <= _MOST_BYTES else text.partition(b"\n")[2]


def _line(text: bytes) -> tuple[int, list[SampleLook]]:
    """Step and samples; -1 where a line is none of ours."""
    try:
        line = parse_json(text)
    except ValueError:
        return -1, []
    step = line.get("step") if isinstance(line, dict) else None
    if type(step) is not int or not 0 <= step <= _LARGEST_STEP:
        return -1, []
    samples = line.get("samples")
    listed = samples if isinstance(samples, list) else []
    return step, [_sample(one) for one in listed[:_MOST_SAMPLES] if isinstance(one, dict)]


def _sample(values: dict[str, Any]) -> SampleLook:
    names = ("prompt", "text", "expected")
    return SampleLook(*(shown_text(values.get(name), _LONGEST) for name in names))
