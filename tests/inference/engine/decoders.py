"""Tiny decoders of every kind that `ModelShape` describes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

VOCABULARY = 300
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
WIDE = {"hidden_size": 1088, "initializer_range": 0.04}
"""Beyond `EXCHANGED_HIDDEN`."""
OURS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer norm": {"norm_type": "layernorm", "norm_bias": True},
    "norm after": {"norm_placement": "post"},
    "gated": {"mlp_type": "swiglu", "mlp_in_bias": True},
    "halves and biases": {"rope_layout": "half", "attention_bias": True},
    "own head": {"tie_word_embeddings": False, "proj_bias": False, "mlp_out_bias": False},
    "wide": WIDE,
}
LLAMAS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True},
    "shared keys": {"num_key_value_heads": 2, "head_dim": 16, "mlp_bias": True},
    "stretched": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    "wide llama": {**WIDE, "num_key_value_heads": 2, "attention_bias": True},
}
KINDS = [*OURS, *LLAMAS]


def config_of(kind: str, **sizes: Any) -> Any:
    """The configuration of a kind, with other sizes where these are given."""
    if kind in OURS:
        return TallyFormerConfig(**{**SIZES, **OURS[kind], **sizes})
    return LlamaConfig(**{**SIZES, **LLAMAS[kind], **sizes})


def make(kind: str) -> Any:
    """In eval mode, with norms and biases that are not those of the beginning."""
    made = TallyFormerForCausalLM if kind in OURS else LlamaForCausalLM
    model = made(config_of(kind))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()
