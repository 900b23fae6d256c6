"""What a run's `samples.jsonl` holds, without the model that wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tallyformer.artifacts.json_files import parse_json
from tallyformer.training.record_file import damaged_record, whole_lines

_FIX = "Delete it to do without these samples; nothing else needs them"
_NAMES = ("prompt", "text", "expected")


@dataclass(frozen=True)
class WrittenSample:
    """What a model in training wrote to one prompt.

    Attributes:
        step: optimizer steps done.
        expected: what the data have there; "" where they have nothing.
    """

    step: int
    prompt: str
    text: str
    expected: str


def read_written_samples(path: Path) -> list[WrittenSample]:
    """All samples of whole lines, in order; a last line that a kill has torn is left out.

    Raises:
        ArtifactError: the file cannot be read, or a line is not what `SamplesLog` writes.
    """
    lines = whole_lines(path, _FIX)
    return [
        sample
        for number, text in enumerate(lines, start=1)
        for sample in _samples(text, path, number)
    ]


def _samples(text: bytes, path: Path, number: int) -> list[WrittenSample]:
    try:
        line = parse_json(text)
    except ValueError as reason:
        raise damaged_record(path, f"line {number}: {reason}", _FIX) from None
    if not _is_line(line):
        raise damaged_record(path, f"line {number} is not a line of samples", _FIX)
    return [
        WrittenSample(line["step"], *(sample[name] for name in _NAMES))
        for sample in line["samples"]
    ]


def _is_line(line: Any) -> bool:
    return (
        isinstance(line, dict)
        and type(line.get("step")) is int
        and isinstance(line.get("samples"), list)
        and all(
            isinstance(sample, dict) and all(isinstance(sample.get(n), str) for n in _NAMES)
            for sample in line["samples"]
        )
    )
