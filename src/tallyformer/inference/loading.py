"""A model folder to a model and its tokenizer, ready to generate."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from tallyformer.errors import ArtifactError, CheckpointError, UsageError
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


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
    cls = TallyFormerForCausalLM if _is_ours(folder) else AutoModelForCausalLM
    try:
        with _no_progress_bar():
            model, report = cls.from_pretrained(str(folder), output_loading_info=True, **arguments)
    except Exception as error:  # safetensors, json, torch and the hub each raise their own
        raise CheckpointError(
            f"{folder}: the model cannot be loaded ({_one_line(error)}). Export it again, or "
            "fetch it again"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} tensors of the configured model are not in the weights, "
            f"the first is {missing[0]!r}. Export the model again"
        )
    return model.to(device).eval()


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; without one, the GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"device: {device!r} is unknown. Use 'cpu' or 'cuda'") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device: {device!r}, but torch finds no GPU. Use 'cpu'")
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
        if path.exists() or path.is_absolute() or str(folder).count("/") > 1:
            raise ArtifactError(f"{folder}: no such model folder. Give a Hugging Face folder")
        return False
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        return bool(values.get("model_type") == "tallyformer")
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder}: holds no config.json, so it is no model. Give a Hugging Face folder, for "
            "example runs/quickstart/model"
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{config}: damaged ({_one_line(error)}). Export it again") from None


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers' bar for a load of a second out of the caller's output."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
