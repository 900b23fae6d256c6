"""Any shape that is allowed is computed as transformers computes it, or not by native at all."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tallyformer.inference.engine.runner import Work
from tallyformer.inference.native.runner import NativeRunner
from tallyformer.model.config_fields import UnsupportedModelError
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.model.quantized import from_bfloat16, quantize, to_bfloat16
from tallyformer.model.shape import shape_of

from .conftest import model_logits

SHAPES = 16
# Of the logits' root mean square, against the same model with weights of that format. What is left
# is the rounding of what the weights are multiplied with: of 8 bits, it was 0.036 at most in 500
# shapes.
_ROUNDING = {"bfloat16": 0.03, "int8": 0.06, "int4": 0.06}


def _rope(source: random.Random, context: int) -> dict[str, Any]:
    kind = source.choice(["default", "linear", "dynamic", "yarn", "llama3"])
    theta = source.choice([500.0, 10_000.0, 1e6])
    more: dict[str, Any] = {} if kind == "default" else {"factor": source.choice([1.5, 2.0, 8.0])}
    if kind == "yarn":
        more["original_max_position_embeddings"] = source.choice([8, context])
    if kind == "llama3":
        more |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        more["original_max_position_embeddings"] = 8
    return {"rope_type": kind, "rope_theta": theta, **more}


def _settings(source: random.Random) -> dict[str, Any]:
    context = source.choice([17, 33, 64])
    return {
        "vocab_size": source.choice([31, 257, 300]),
        "num_hidden_layers": source.choice([1, 2]),
        "intermediate_size": source.choice([1, 7, 50, 101, 128]),
        "max_position_embeddings": context,
        "tie_word_embeddings": source.random() < 0.5,
        "rope_parameters": _rope(source, context),
        "bos_token_id": 1,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }


def _ours(source: random.Random) -> Any:
    heads, size = source.choice([1, 2, 3, 5]), source.choice([4, 6, 10, 16, 18, 34, 64, 66])
    norm = source.choice(["rmsnorm", "layernorm"])
    flags = ("attention_bias", "proj_bias", "mlp_in_bias", "mlp_out_bias")
    config = TallyFormerConfig(
        **_settings(source),
        hidden_size=heads * size,
        num_attention_heads=heads,
        norm_type=norm,
        norm_bias=norm == "layernorm" and source.random() < 0.5,
        norm_placement=source.choice(["pre", "post"]),
        mlp_type=source.choice(["gelu", "swiglu"]),
        rope_layout=source.choice(["interleaved", "half"]),
        **{flag: source.random() < 0.5 for flag in flags},
    )
    return TallyFormerForCausalLM(config)


def _llama(source: random.Random) -> Any:
    kv_heads = source.choice([1, 2, 3])
    heads = kv_heads * source.choice([1, 2, 4])
    config = LlamaConfig(
        **_settings(source),
        hidden_size=heads * source.choice([4, 7, 9, 16]),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=source.choice([4, 6, 10, 20, 34, 64]),
        attention_bias=source.random() < 0.5,
        mlp_bias=source.random() < 0.5,
    )
    return LlamaForCausalLM(config)


def _with_weights(model: Any, dtype: str) -> None:
    """Round the matrices to a number format."""
    for parameter in model.parameters():
        if parameter.dim() == 2:
            weight = parameter.data.numpy()
            if dtype == "bfloat16":
                rounded = from_bfloat16(to_bfloat16(weight))
            else:
                rounded = quantize(weight, 8 if dtype == "int8" else 4).dequantized()
            parameter.data = torch.from_numpy(rounded)
    model.tie_weights()


@pytest.mark.parametrize("make", [_ours, _llama])
@pytest.mark.parametrize("seed", range(SHAPES))
def test_logits_of_any_shape_are_the_models(seed: int, make: Any) -> None:
    source = random.Random(seed)
    torch.manual_seed(seed)
    model = make(source).eval()
    for parameter in model.parameters():
        noise = torch.randn_like(parameter)
        parameter.data = 1 + 0.1 * noise if noise.dim() == 1 else noise / noise.shape[1] ** 0.5
    model.tie_weights()
    tensors = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    if model.config.rope_parameters["rope_type"] == "dynamic":
        with pytest.raises(UnsupportedModelError, match="dynamic"):
            shape_of(model.config.to_dict())
        return
    shape = shape_of(model.config.to_dict())
    ids = [source.randrange(shape.vocab) for _ in range(shape.context)]

    def logits(dtype: str) -> np.ndarray:
        runner = NativeRunner(shape, tensors.__getitem__, dtype=dtype, vocab_size=shape.vocab)
        return runner.compute([Work(1, 0, ids, len(ids))])

    assert np.abs(logits("float32") - model_logits(model, ids)).max() < 1e-4
    for dtype, rounding in _ROUNDING.items():
        model.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
        _with_weights(model, dtype)
        expected = model_logits(model, ids)
        error = np.square(logits(dtype) - expected).mean() ** 0.5
        assert error < rounding * np.square(expected).mean() ** 0.5, (dtype, error)
