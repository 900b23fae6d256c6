"""How a model's folder says that it wants to be sampled: its generation_config.json."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tallyformer.artifacts.json_files import read_json
from tallyformer.errors import ArtifactError, InvalidRequestError
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.quoting import quoted
from tallyformer.token_ids import as_id

if TYPE_CHECKING:
    from transformers import GenerationConfig

SETTINGS = "generation_config.json"
CAREFUL = {"do_sample": True, "temperature": 0.3, "top_k": 20, "top_p": 0.9}
"""A small model's own distribution holds much that is wrong: its likeliest tokens are far better.
Only settings that transformers and `SamplingParams` both have, so that both sample alike."""
_FIELDS = {"max_new_tokens": "max_tokens", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_FIX = "Correct it, or fetch the file again; without one the model is sampled at temperature 1"


def careful_generation_config(*, eot_id: Any, pad_id: int | None) -> GenerationConfig:
    """What a written folder says: careful sampling, ended by end-of-text.

    It names no length: with one, transformers' `generate` warns of every other.
    """
    from transformers import GenerationConfig  # whoever only reads a folder does without

    return GenerationConfig(
        bos_token_id=eot_id, eos_token_id=eot_id, pad_token_id=pad_id, **CAREFUL
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """The values of a folder's generation_config.json; none at all where there is no file.

    transformers passes over one that is not JSON, and the model would be sampled otherwise than its
    folder says.

    Raises:
        ArtifactError: it is damaged, or a value that is followed is of the wrong type.
    """
    file = folder / SETTINGS
    if not (folder.is_dir() and os.path.lexists(file)):
        return {}
    values = read_json(file, fix=_FIX)
    if not isinstance(values.get("do_sample"), bool | None):
        said = quoted(values["do_sample"])
        raise ArtifactError(f"{file}: do_sample: must be true or false; it is {said}. {_FIX}")
    for name in _IDS:
        ids = values.get(name)
        for value in ids if isinstance(ids, list) and ids else [] if ids is None else [ids]:
            if as_id(value) is None:
                raise ArtifactError(f"{file}: {name}: {quoted(value)} is not a token id. {_FIX}")
    return values


def check_settings(folder: Path) -> None:
    """Refuse a generation_config.json that transformers would not take, either.

    Raises:
        ArtifactError: it is damaged, or a value is of the wrong type.
    """
    from transformers import GenerationConfig

    values = read_settings(folder)
    try:
        GenerationConfig.from_dict(values)
    except Exception as error:  # comparisons of wrong types, and the library's own refusals
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{folder / SETTINGS}: cannot be used ({reason}). {_FIX}") from None


def sampling_defaults(values: Mapping[str, Any], folder: str | Path) -> SamplingParams:
    """The settings of a generation_config.json; where it names none, `SamplingParams()`.

    Args:
        values: its own, by transformers' names.
        folder: where it lies, for the error.

    Raises:
        ArtifactError: one of them is out of range.
    """
    given = {ours: values.get(theirs) for theirs, ours in _FIELDS.items()}
    given["temperature"] = values.get("temperature")
    try:
        SamplingParams(**{name: value for name, value in given.items() if value is not None})
        if not values.get("do_sample"):
            given["temperature"] = None if values.get("do_sample") is None else 0
        return SamplingParams(**{name: value for name, value in given.items() if value is not None})
    except InvalidRequestError as error:
        raise ArtifactError(f"{folder}/{SETTINGS}: {error}. Correct it there") from None


def end_ids(values: Mapping[str, Any], of_config: Collection[int]) -> frozenset[int]:
    """What ends a text: as a generation_config.json says, else as the config.json does."""
    found = values.get("eos_token_id")
    if found is None:
        return frozenset(of_config)
    return frozenset(found if isinstance(found, list | tuple) else [found])
