"""What the model writes at each validation, for a person to read: `samples.jsonl`.

A line has `step`, the optimizer steps done, and `samples`, each with `prompt`, `text` and
`expected`, which is "" where nobody knows better.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tallyformer.artifacts.run_folder import SAMPLES
from tallyformer.training.random_state import preserved_random_states
from tallyformer.training.record_file import RecordFile

TakeSamples = Callable[[], Sequence[Mapping[str, str]]]
"""Has the model write; the model is in eval mode then."""


class SamplesLog:
    """Appends a line a validation, and leaves the training as it was.

    Args:
        folder: the stage's folder.
        take: gives the samples of now; None writes no file, and touches none.
        known: size and checksum of the lines that a checkpoint knows.

    Raises:
        ArtifactError: those lines are damaged, or the file cannot be written.
    """

    def __init__(self, folder: Path, take: TakeSamples | None, known: Mapping[str, Any]) -> None:
        self._take = take
        self._known = dict(known)
        self._lines = RecordFile(folder / SAMPLES, known) if take else None

    def write(self, step: int, model: nn.Module, device: torch.device) -> None:
        """Take samples and add their line.

        Raises:
            ArtifactError: the disk is full.
        """
        if self._take is None or self._lines is None:
            return
        with undisturbed(model, device):
            samples = [dict(sample) for sample in self._take()]
        self._lines.write({"step": step, "samples": samples})

    def written(self) -> dict[str, Any]:
        """Size and checksum of all lines, which lie on the disk from now on."""
        return self._lines.written() if self._lines else self._known

    def __enter__(self) -> SamplesLog:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lines:
            self._lines.close()


@contextlib.contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Give a model in training out for something else: without dropout, and compiling nothing.

    Its mode and the process's random generators are put back. Compiled blocks run as they are
    written, since the shapes of a single new id would be compiled too, for minutes, and what is
    compiled decides a training's bits.
    """
    was_training = model.training
    model.eval()
    try:
        with preserved_random_states(device), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        model.train(was_training)
