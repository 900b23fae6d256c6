"""A model's folder with its matrices in whole numbers, which our engine loads as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tallyformer.artifacts.json_files import read_json
from tallyformer.artifacts.tensor_files import INDEX
from tallyformer.model.quantized import GROUPS, quantize
from tallyformer.model.shape import shape_of
from tallyformer.model.weights import (
    QUANTIZED_FILE,
    FolderWeights,
    quantization_config,
    stored_parts,
    wide,
)

_CONFIG = "config.json"
_FIX = "Export the model again, or fetch it again"


def quantize_folder(folder: Path, bits: int) -> None:
    """Replace a folder's matrices by whole numbers, in place; vectors become float32.

    It is for a folder that is still being written: a process killed here leaves it of no use.

    It has no code for transformers, which cannot load it.

    Args:
        folder: of a model whose shape `shape_of` knows, in floating point.
        bits: 8 or 4.

    Raises:
        UnsupportedModelError: a model of another kind.
        CheckpointError: its tensors are damaged.
    """
    config = read_json(folder / _CONFIG, fix=_FIX)
    shape = shape_of(config)
    weights = FolderWeights(folder, config, shape, fix=_FIX)
    tensors: dict[str, np.ndarray] = {}
    for name in weights.names:
        values = wide(weights(name))
        if values.ndim == 2:
            tensors |= stored_parts(name, quantize(values, bits))
        else:
            tensors[name] = values
    for old in (*folder.glob("*.safetensors"), *folder.glob(INDEX), *folder.glob("*.py")):
        old.unlink()
    config.pop("auto_map", None)
    save_file({name: _stored(v) for name, v in tensors.items()}, folder / QUANTIZED_FILE)
    config["quantization_config"] = quantization_config(bits, GROUPS[bits])
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / _CONFIG).write_text(text, encoding="utf-8")


def _stored(values: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.view(torch.bfloat16) if values.dtype == np.uint16 else tensor
