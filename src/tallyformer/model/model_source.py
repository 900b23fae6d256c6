"""A folder or a name on the hub that holds a model, told from one that does not. Loads no torch."""

from __future__ import annotations

import os
from pathlib import Path

from tallyformer.artifacts.hub_names import could_be_hub_name
from tallyformer.artifacts.hub_reach import Hub
from tallyformer.artifacts.json_files import read_json
from tallyformer.artifacts.model_folder import OUTPUTS
from tallyformer.errors import ArtifactError

CONFIG = "config.json"


def check_source(source: str | Path, *, revision: str | None, fix: str) -> None:
    """Refuse in plain words what transformers would look for on the hub, or fail to parse.

    Args:
        source: a Hugging Face folder, or a hub name.
        revision: of a hub name; None is its newest state.
        fix: what helps where config.json is damaged, as the last sentence of the error.

    Raises:
        ArtifactError: there is no model, or its config.json is not a JSON object.
    """
    path = Path(source)
    config = path / CONFIG
    if not path.is_dir():
        _check_on_hub(source, revision)
    elif os.path.lexists(config):
        read_json(config, fix=fix)
    else:
        inner = (path / name for name in ("model", *sorted(OUTPUTS)))
        there = next((f for f in inner if (f / CONFIG).is_file()), "a Hugging Face folder")
        raise ArtifactError(f"{source}: holds no {CONFIG}, so it is not a model. Give {there}")


def _check_on_hub(source: str | Path, revision: str | None) -> None:
    if Path(source).exists() or not could_be_hub_name(str(source)):
        raise ArtifactError(f"{source}: no such model folder. Give a Hugging Face folder")
    if reason := Hub().problem(str(source), revision, kind="model", cached=(CONFIG,)):
        raise ArtifactError(
            f"{source}: no such folder, and on the hub: {reason}. Give a Hugging Face folder"
        )
