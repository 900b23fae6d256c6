"""How a model's folder says that it wants to be sampled: its generation_config.json."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from tallyformer.errors import ArtifactError
from tallyformer.inference.errors import InvalidRequestError
from tallyformer.inference.sampling_params import SamplingParams

CAREFUL = {"do_sample": True, "temperature": 0.3, "top_k": 20, "top_p": 0.9}
"""A small model's own distribution holds much that is wrong: its likeliest tokens are far better.
Only settings that transformers and `SamplingParams` both have, so that both sample alike."""
_FIELDS = {"max_new_tokens": "max_tokens", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}


def careful_generation_config(*, eot_id: Any, pad_id: int | None) -> GenerationConfig:
    """What a written folder says: careful sampling, ended by end-of-text.

    It names no length: with one, transformers' `generate` warns of every other.
    """
    return GenerationConfig(
        bos_token_id=eot_id, eos_token_id=eot_id, pad_token_id=pad_id, **CAREFUL
    )


def sampling_defaults(model: Any) -> SamplingParams:
    """The settings of a model's generation_config; where it names none, `SamplingParams()`.

    Raises:
        ArtifactError: one of them is out of range.
    """
    config = getattr(model, "generation_config", None)
    given = {ours: getattr(config, theirs, None) for theirs, ours in _FIELDS.items()}
    sampled = getattr(config, "do_sample", None)
    if sampled is not None:
        given["temperature"] = getattr(config, "temperature", None) if sampled else 0
    try:
        return SamplingParams(**{name: value for name, value in given.items() if value is not None})
    except InvalidRequestError as error:
        raise ArtifactError(
            f"{model.config.name_or_path}/generation_config.json: {error}. Correct it there"
        ) from None
