"""Resumable checkpoints: the last two, each whole or not there.

    checkpoints/last/
      model.safetensors      trainable parameters by name
      optimizer.safetensors  AdamW's exp_avg, exp_avg_sq and step, or Muon's momentum, by parameter
      random.safetensors     every generator's state
      state.json             counters, scaler, best loss; checksums of the files above

Nothing is pickled, so loading a checkpoint runs no code of its author's.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tallyformer.artifacts.atomic import atomic_folder, sync_folder
from tallyformer.artifacts.json_files import read_checked_json, write_checked_json
from tallyformer.artifacts.manifest import sha256
from tallyformer.artifacts.system_errors import cannot_write
from tallyformer.errors import CheckpointError
from tallyformer.training.optimizers import Optimizer

STATE = "state.json"
_TENSOR_FILES = ("model", "optimizer", "random")
_MOMENTS = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds: tensors by file and name, and JSON values."""

    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: holds `last` and `previous`.
        resume_command: what resumes the run, for errors.
    """

    def __init__(self, folder: Path, resume_command: str):
        self.last = folder / "last"
        self.previous = folder / "previous"
        self._resume_command = resume_command

    def save(self, snapshot: Snapshot) -> None:
        """Write `last`; what was `last` becomes `previous`.

        A kill at any moment leaves `last`, or else `previous`, whole.

        Raises:
            ArtifactError: the disk is full.
        """
        fresh = self.last.with_name("next")
        with atomic_folder(fresh) as folder:
            for name in _TENSOR_FILES:
                save_file(snapshot.tensors[name], folder / f"{name}.safetensors")
            sums = {name: sha256(folder / f"{name}.safetensors") for name in _TENSOR_FILES}
            body = {"state": snapshot.state, "sha256": sums}
            write_checked_json(folder / STATE, body)
        try:
            if self.last.exists():
                if self.previous.exists():
                    shutil.rmtree(self.previous)
                self.last.replace(self.previous)
            fresh.replace(self.last)
            sync_folder(self.last.parent)
        except OSError as error:
            raise cannot_write(self.last, error) from error

    def newest(self) -> Path | None:
        """Folder of the newest checkpoint, or None."""
        for folder in (self.last, self.last.with_name("next"), self.previous):
            if folder.exists():
                return folder
        return None

    def load(self) -> Snapshot | None:
        """The newest checkpoint, verified, or None if there is none.

        Raises:
            CheckpointError: it is torn or altered.
        """
        folder = self.newest()
        return None if folder is None else self._read(folder)

    def _read(self, folder: Path) -> Snapshot:
        body = read_checked_json(folder / STATE, fix=self._fix(folder), error=CheckpointError)
        tensors = {}
        for name in _TENSOR_FILES:
            file = folder / f"{name}.safetensors"
            try:
                if sha256(file) != body["sha256"][name]:
                    raise self._damaged(file, "its checksum differs")
                tensors[name] = load_file(file)
            except (OSError, SafetensorError) as error:
                raise self._damaged(file, str(error)) from None
        return Snapshot(tensors, body["state"])

    def _damaged(self, file: Path, reason: str) -> CheckpointError:
        reason = " ".join(reason.split())
        return CheckpointError(
            f"{file}: the checkpoint is damaged ({reason}). {self._fix(file.parent)}"
        )

    def _fix(self, folder: Path) -> str:
        if folder == self.last and self.previous.is_dir():
            fix = f"Delete {folder} to resume from {self.previous}"
        else:
            fix = f"Delete {folder} to start this stage again"
        return f"{fix}, then: {self._resume_command}"


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained, by name, tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters as plain contiguous tensors."""
    return {name: p.detach().contiguous() for name, p in trainable(model).items()}


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state by parameter name; empty before its first step."""
    tensors = {}
    for name, parameter in trainable(model).items():
        state = optimizer.state.get(parameter, {})
        for key in state:
            assert key in _MOMENTS
            tensors[f"{name}:{key}"] = state[key].contiguous()
    return tensors


def restore(
    model: nn.Module,
    optimizer: Optimizer,
    snapshot: Snapshot,
    where: Path,
) -> None:
    """Put weights and optimizer state back.

    Raises:
        CheckpointError: names or shapes are not this model's.
    """
    parameters = trainable(model)
    saved = snapshot.tensors["model"]
    wrong = {n for n in parameters if n not in saved or saved[n].shape != parameters[n].shape}
    wrong |= saved.keys() - parameters.keys()
    if wrong:
        raise CheckpointError(
            f"{where}: holds another model's weights (first difference: {min(wrong)}). "
            "Delete it to start this stage again, or use the recipe it was made with"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
    moments = snapshot.tensors["optimizer"]
    for name, parameter in parameters.items():
        state = {k: moments[f"{name}:{k}"] for k in _MOMENTS if f"{name}:{k}" in moments}
        if state:
            optimizer.state[parameter] = {
                # A copy: what safetensors loads may still lie in the file.
                key: value.to(parameter.device, copy=True)
                for key, value in state.items()
            }
