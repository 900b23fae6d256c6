"""The one way a folder, or a name on the hub, becomes a causal language model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaForCausalLM,
    PreTrainedConfig,
)

from tallyformer.errors import ArtifactError, CheckpointError, UsageError
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.model_source import check_source
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.model.pretrained import REPORTED, check_complete, quiet_library
from tallyformer.model.shape import shape_of
from tallyformer.model.weights import FolderWeights, quantized_bits, wide

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_model(
    source: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: torch.device | None = None,
    revision: str | None = None,
    dropout: float | None = None,
    fix: str = "Export it again, or fetch it again",
) -> Any:
    """Load a causal language model in eval mode, with this package's class where it is ours.

    No code of the folder runs, and no tensor is filled with random numbers.

    Args:
        source: a Hugging Face folder, or a hub name of a model that transformers knows.
        dtype: of the weights; None keeps the folder's.
        device: where the weights go; None is the CPU.
        revision: of a hub name; None is its newest state.
        dropout: of a TallyFormer that is trained on; None keeps the folder's.
        fix: what helps where the weights cannot be used, as the last sentence of the error.

    Raises:
        ArtifactError: the folder or its config.json is not there, or cannot be understood.
        CheckpointError: the weights are missing, damaged or do not fit the configuration.
        UsageError: the dtype is unknown.
    """
    config = load_config(source, revision=revision, fix=fix)
    weights = _whole_numbers(Path(source), config, fix)
    arguments = {
        "dtype": torch.float32 if weights and dtype is None else _dtype(dtype),
        "revision": revision or "main",
        **REPORTED,
    }
    ours = isinstance(config, TallyFormerConfig)
    if ours and dropout is not None:
        config.dropout = dropout
    # What has no folder for transformers to look into is one of the two that `shape_of` knows.
    other = AutoModelForCausalLM if weights is None else LlamaForCausalLM
    cls = TallyFormerForCausalLM if ours else other
    try:
        with quiet_library():
            model, report = cls.from_pretrained(
                None if weights else str(source),
                config=config,
                state_dict=weights,
                trust_remote_code=False,
                **arguments,
            )
        check_complete(report, source, exactly=ours and weights is None)
    except Exception as error:  # safetensors, json, torch and the hub each raise their own
        raise CheckpointError(f"{source}: cannot be loaded ({_one_line(error)}). {fix}") from error
    return model.to(device or torch.device("cpu")).eval()


def _whole_numbers(folder: Path, config: Any, fix: str) -> dict[str, torch.Tensor] | None:
    """float32 weights of a folder whose config says that it holds whole numbers of ours.

    The configuration says so no more.
    """
    described = config.to_dict()
    if quantized_bits(described) is None:
        return None
    weights = FolderWeights(folder, described, shape_of(described), fix=fix)
    del config.quantization_config
    return {name: torch.from_numpy(wide(weights(name))) for name in weights.names}


def load_config(source: str | Path, *, revision: str | None, fix: str) -> Any:
    """The configuration of a model, with this package's class where it is ours.

    Raises:
        ArtifactError: it is not there, cannot be understood, or is of a model that transformers
            does not know.
    """
    check_source(source, revision=revision, fix=fix)
    at = {"revision": revision or "main"}
    try:
        with quiet_library():
            described, _ = PreTrainedConfig.get_config_dict(str(source), **at)
            if described.get("model_type") == TallyFormerConfig.model_type:
                return TallyFormerConfig.from_pretrained(str(source), **at)
            return AutoConfig.from_pretrained(str(source), trust_remote_code=False, **at)
    except Exception as error:  # json, the hub and the classes each raise their own
        raise ArtifactError(f"{source}: cannot be loaded ({_one_line(error)}). {fix}") from error


def _dtype(dtype: str | torch.dtype | None) -> str | torch.dtype:
    if dtype is None:
        return "auto"
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise UsageError(f"dtype: {dtype!r} is unknown. Use one of: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
