"""A model folder to a model and its tokenizer, ready to generate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tallyformer.artifacts.hub_names import could_be_hub_name
from tallyformer.artifacts.hub_reach import Hub
from tallyformer.artifacts.json_files import read_json
from tallyformer.errors import ArtifactError, CheckpointError, UsageError
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.model.pretrained import REPORTED, check_complete, quiet_library

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_DEVICES: Mapping[str, Callable[[], int]] = {
    "cpu": lambda: 1,
    "cuda": torch.cuda.device_count,
    "mps": lambda: int(torch.backends.mps.is_available()),
}
"""How many there are of each kind."""


def load_model(folder: str | Path, *, dtype: str | torch.dtype | None, device: torch.device) -> Any:
    """Load a causal language model in eval mode, with this package's class where it is ours.

    Args:
        folder: a Hugging Face folder, or a hub name of a model that transformers knows.
        dtype: of the weights; None keeps the folder's.
        device: where the weights go.

    Raises:
        ArtifactError: the folder or its config.json is not there, or cannot be understood.
        CheckpointError: the weights are missing, damaged or do not fit the configuration.
        UsageError: the dtype is unknown.
    """
    arguments = {"dtype": _dtype(dtype), "trust_remote_code": False}
    ours = _is_ours(folder)
    cls = TallyFormerForCausalLM if ours else AutoModelForCausalLM
    try:
        with quiet_library():
            model, report = cls.from_pretrained(str(folder), **REPORTED, **arguments)
        check_complete(report, folder, exactly=ours)
    except Exception as error:  # safetensors, json, torch and the hub each raise their own
        raise CheckpointError(
            f"{folder}: the model cannot be loaded ({_one_line(error)}). Export it again, or "
            "fetch it again"
        ) from error
    return model.to(device).eval()


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; without one, the GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type not in _DEVICES:
        raise UsageError(f"device: {str(device)!r} is unknown. Use one of: {', '.join(_DEVICES)}")
    count = _DEVICES[chosen.type]()
    if (chosen.index or 0) >= count:
        found = f"{count} of them" if count else "none"
        raise UsageError(f"device: {str(device)!r}, but torch finds {found} here. Use 'cpu'")
    return chosen


def _dtype(dtype: str | torch.dtype | None) -> str | torch.dtype:
    if dtype is None:
        return "auto"
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise UsageError(f"dtype: {dtype!r} is unknown. Use one of: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _is_ours(folder: str | Path) -> bool:
    """Whether the folder's config.json names our model type; a hub name is never ours."""
    path = Path(folder)
    config = path / "config.json"
    if not path.is_dir():
        if path.exists() or not could_be_hub_name(str(folder)):
            raise ArtifactError(f"{folder}: no such model folder. Give a Hugging Face folder")
        if reason := Hub().problem(str(folder), None, kind="model", cached=(config.name,)):
            raise ArtifactError(
                f"{folder}: no such folder, and on the hub: {reason}. Give a Hugging Face folder"
            )
        return False
    if not os.path.lexists(config):
        inner = path / "model"
        there = inner if (inner / config.name).is_file() else "a Hugging Face folder"
        raise ArtifactError(f"{folder}: holds no config.json, so it is no model. Give {there}")
    return bool(read_json(config, fix="Export it again").get("model_type") == "tallyformer")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
