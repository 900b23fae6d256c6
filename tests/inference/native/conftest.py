"""Models of every shape, and the native runner of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tallyformer.inference.native.available import available, kernels
from tallyformer.inference.native.runner import NativeRunner
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.model.shape import shape_of

DTYPES = ("float32", "bfloat16", "int8", "int4")
KERNELS = ("avx512_bf16", "avx512_vnni", "avx2", "portable")

_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 48,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
SHAPES: dict[str, dict[str, Any]] = {
    "default": {},
    "everything else": {
        "norm_type": "layernorm",
        "norm_bias": True,
        "norm_placement": "post",
        "mlp_type": "swiglu",
        "rope_layout": "half",
        "attention_bias": True,
        "mlp_in_bias": True,
        "tie_word_embeddings": False,
        # Nothing is a whole number of registers, panels or groups.
        "hidden_size": 84,
        "num_attention_heads": 3,
        "intermediate_size": 101,
        "vocab_size": 77,
    },
    "no bias": {"proj_bias": False, "mlp_out_bias": False, "hidden_size": 128},
    "llama": {
        "num_key_value_heads": 2,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    },
}


@dataclass(frozen=True)
class Made:
    """A model, and a native runner of its weights."""

    model: Any
    runner: Callable[..., NativeRunner]


def _made(name: str) -> Made:
    torch.manual_seed(0)
    settings = {**_SIZES, **SHAPES[name]}
    model: Any
    if name == "llama":
        model = LlamaForCausalLM(LlamaConfig(**settings))
    else:
        model = TallyFormerForCausalLM(TallyFormerConfig(**settings))
    for parameter in model.parameters():
        noise = torch.randn_like(parameter) * 0.1
        parameter.data = noise + 1 if parameter.dim() == 1 else noise
    model.eval()
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}
    shape = shape_of(model.config.to_dict())

    def runner(dtype: str = "float32", **settings: Any) -> NativeRunner:
        return NativeRunner(
            shape, tensors.__getitem__, dtype=dtype, vocab_size=shape.vocab, **settings
        )

    return Made(model, runner)


@pytest.fixture(scope="session", autouse=True)
def _library() -> None:
    if reason := available():
        pytest.skip(f"no native library: {reason}")


@pytest.fixture(scope="session", params=SHAPES)
def made(request: pytest.FixtureRequest) -> Made:
    return _made(request.param)


@pytest.fixture(scope="session")
def default() -> Made:
    return _made("default")


@pytest.fixture(scope="session", params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    if kernels(request.param) is None:
        pytest.skip(f"this processor cannot run {request.param}")
    return str(request.param)


def model_logits(model: Any, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([ids])).logits[0].numpy()
    return logits
