"""A folder or a name on the hub that holds a model, told from one that does not. Loads no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tallyformer.artifacts.hub_names import could_be_hub_name
from tallyformer.artifacts.hub_reach import Hub
from tallyformer.artifacts.json_files import read_json
from tallyformer.artifacts.model_folder import OUTPUTS
from tallyformer.errors import ArtifactError
from tallyformer.quoting import quoted

CONFIG = "config.json"
_LARGEST = {
    "num_hidden_layers": 10_000,
    "n_layer": 10_000,
    "hidden_size": 2**20,
    "head_dim": 2**20,
    "max_position_embeddings": 2**27,
    "vocab_size": 2**31 - 1,
    "intermediate_size": 2**31 - 1,
    "num_attention_heads": 2**31 - 1,
    "num_key_value_heads": 2**31 - 1,
}
"""Far beyond any model: a damaged size is to be named before memory is taken for it."""


def check_source(source: str | Path, *, revision: str | None, fix: str) -> None:
    """Refuse in plain words what transformers would look for on the hub, or fail to parse.

    Args:
        source: a Hugging Face folder, or a hub name.
        revision: of a hub name; None is its newest state.
        fix: what helps where config.json is damaged, as the last sentence of the error.

    Raises:
        ArtifactError: there is no model, or its config.json is not a JSON object or has a size
            that no model has.
    """
    path = Path(source)
    config = path / CONFIG
    if not path.is_dir():
        _check_on_hub(source, revision)
    elif os.path.lexists(config):
        _check_sizes(read_json(config, fix=fix), config, fix)
    else:
        inner = (path / name for name in ("model", *sorted(OUTPUTS)))
        there = next((f for f in inner if (f / CONFIG).is_file()), "a Hugging Face folder")
        raise ArtifactError(f"{source}: holds no {CONFIG}, so it is not a model. Give {there}")


def _check_sizes(values: Mapping[str, Any], config: Path, fix: str) -> None:
    for name, most in _LARGEST.items():
        size = values.get(name)
        if isinstance(size, int) and size > most:
            raise ArtifactError(f"{config}: {name}: {quoted(size)} is more than {most}. {fix}")


def _check_on_hub(source: str | Path, revision: str | None) -> None:
    if Path(source).exists() or not could_be_hub_name(str(source)):
        raise ArtifactError(f"{source}: no such model folder. Give a Hugging Face folder")
    if reason := Hub().problem(str(source), revision, kind="model", cached=(CONFIG,)):
        raise ArtifactError(
            f"{source}: no such folder, and on the hub: {reason}. Give a Hugging Face folder"
        )
