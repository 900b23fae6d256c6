"""How large a model is, from its folder's files alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tallyformer.artifacts.json_files import read_json
from tallyformer.artifacts.tensor_files import stored_tensors
from tallyformer.model.config_fields import UnsupportedModelError
from tallyformer.model.shape import shape_of

_FIX = "Fetch the model again"
_OLDER_NAMES = {
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "hidden_size": "n_embd",
}
"""GPT-2's and its kin's, where transformers' common names are not written."""


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """A decoder's sizes.

    Attributes:
        parameters: numbers that were learned, whatever precision they are stored in.
        layers: blocks.
        heads: of queries in each block.
        hidden: channels between the blocks.
    """

    parameters: int
    layers: int
    heads: int
    hidden: int


def sizes_of(folder: Path) -> ModelSizes:
    """The sizes of a folder's model.

    Raises:
        TallyFormerError: a file that is missing or damaged.
    """
    config = read_json(folder / "config.json", fix=_FIX)
    return ModelSizes(
        parameters=_parameters(folder, config),
        layers=_size(config, "num_hidden_layers"),
        heads=_size(config, "num_attention_heads"),
        hidden=_size(config, "hidden_size"),
    )


def _parameters(folder: Path, config: Mapping[str, Any]) -> int:
    """By the shape, as quantized files hold scales and packed numbers; else what is stored."""
    try:
        shapes = list(shape_of(config).tensors().values())
    except UnsupportedModelError:
        shapes = [tensor.shape for tensor in stored_tensors(folder, fix=_FIX).values()]
    return sum(math.prod(shape) for shape in shapes)


def _size(config: Mapping[str, Any], name: str) -> int:
    return int(config.get(name, config.get(_OLDER_NAMES[name], 0)))
