"""Metrics of a run: one JSON object a line, and TensorBoard events of the same numbers.

A line has `kind` "train" or "validation" and `step`, the optimizer steps done.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tallyformer.artifacts.json_files import parse_json
from tallyformer.artifacts.run_folder import METRICS
from tallyformer.artifacts.system_errors import cannot_write
from tallyformer.errors import ArtifactError
from tallyformer.training.record_file import RecordFile, damaged_record, whole_lines

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TENSORBOARD = "tensorboard"
_LARGEST = 1e300
_RESTART = "Delete the stage's folder and run the stage again"


class MetricsLog:
    """Appends lines to `metrics.jsonl` and scalars to `tensorboard/`.

    Args:
        folder: the stage's folder.
        steps_done: of TensorBoard, events of later steps, which a killed run left, are dropped.
        written: size and checksum of the lines that a checkpoint knows; later ones are dropped.
            None starts again.

    Raises:
        ArtifactError: those lines are damaged, or the file cannot be written.
    """

    def __init__(self, folder: Path, steps_done: int, written: Mapping[str, Any] | None = None):
        self._path = folder / METRICS
        self._lines = RecordFile(self._path, written)
        self._events = _events(folder / TENSORBOARD, steps_done)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Add a line. Floats that are not finite are written as null, which JSON can hold.

        Raises:
            ArtifactError: the disk is full.
        """
        self._lines.write({"kind": kind, "step": step, **values})
        try:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._events.add_scalar(f"{kind}/{name}", value, step)
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def written(self) -> dict[str, Any]:
        """Size and checksum of all lines, which lie on the disk from now on."""
        return self._lines.written()

    def close(self) -> None:
        """Flush and close both files."""
        self._lines.close()
        self._events.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that a kill has torn is left out.

    Raises:
        ArtifactError: the file cannot be read, or a line is not what `MetricsLog` writes.
    """
    lines = whole_lines(path, _RESTART)
    return [_line(text, path, number) for number, text in enumerate(lines, start=1)]


def _line(text: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        line = parse_json(text)
    except ValueError as reason:
        raise _damaged(path, f"line {number}: {reason}") from None
    if not (
        isinstance(line, dict)
        and isinstance(line.get("kind"), str)
        and isinstance(line.get("step"), int)
        and all(_is_number(value) for name, value in line.items() if name != "kind")
    ):
        raise _damaged(path, f"line {number} is not a line of metrics")
    return line


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and abs(value) < _LARGEST)


def _damaged(path: Path, reason: str | None) -> ArtifactError:
    return damaged_record(path, reason, _RESTART)


def _events(folder: Path, steps_done: int) -> SummaryWriter:
    # TensorBoard takes seconds to import; a process that trains nothing does not pay for it.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=steps_done + 1 if steps_done else None)
