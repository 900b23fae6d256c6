"""A decoder's shape and weights in one form, whichever class they come from.

TallyFormer models and stock Llamas differ in names alone, and in what their configurations leave
open. The writers of other engines' formats read this form.

Shapes: D hidden size, H heads, E head size, R = E / 2 rotated pairs, F MLP width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaForCausalLM

from tallyformer.errors import ArtifactError
from tallyformer.model.llama import NAMES
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

_CHANGING_ROPE = ("dynamic", "longrope")
"""Rotary settings whose frequencies depend on how long the input is."""
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder-only transformer with rotary positions.

    Attributes:
        kv_heads: heads of keys and values; each serves `heads / kv_heads` query heads.
        context: the longest input it was trained for.
        norm_type: "rmsnorm" or "layernorm".
        pre_norm: `x + f(norm(x))`; otherwise `norm(x + f(x))`.
        gated: the MLP is SwiGLU; otherwise `fc2(gelu(fc1(x)))` with the exact GELU.
        interleaved: channels 2i and 2i + 1 rotate together; otherwise i and i + E / 2.
        inverse_frequency: radians per position of each pair, (R,) in float32.
        rope_scale: factor on cosines and sines.
        rope_type: as in the configuration, "default" for the plain one.
        rope_theta: its base.
        tied: the head is the token embedding's matrix.
        weights: by TallyFormer's names without "model.", float32, (out, in) for matrices; the
            head of a tied model is left out.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    context: int
    norm_type: str
    norm_eps: float
    pre_norm: bool
    gated: bool
    interleaved: bool
    inverse_frequency: torch.Tensor
    rope_scale: float
    rope_type: str
    rope_theta: float
    tied: bool
    weights: Weights

    @property
    def head(self) -> torch.Tensor:
        """The matrix (V, D) that turns hidden states into logits."""
        return self.weights["token_embed.weight" if self.tied else "lm_head.weight"]

    def bias(self, name: str) -> torch.Tensor | None:
        """A layer's bias, or None where it has none."""
        return self.weights.get(f"{name}.bias")


def read_decoder(model: Any, source: object) -> Decoder:
    """The shape and the weights of a TallyFormer or a stock Llama.

    Args:
        model: in float32, on the CPU.
        source: its name, for errors.

    Raises:
        ArtifactError: it is of another class, or one of its settings has no fixed arithmetic.
    """
    config = model.config
    if isinstance(model, TallyFormerForCausalLM):
        shape = _of_tallyformer(config)
    elif isinstance(model, LlamaForCausalLM):
        shape = _of_llama(config, source)
    else:
        raise ArtifactError(
            f"{source}: is a {type(model).__name__}; only TallyFormer and Llama models are "
            "exported to other engines. Give the folder of one"
        )
    rope = config.rope_parameters or {}
    rope_type = rope.get("rope_type", "default")
    if rope_type in _CHANGING_ROPE:
        raise ArtifactError(
            f"{source}: its rope_type {rope_type!r} changes the rotations with the length of the "
            "input, which no other engine here does in the same way. Use --format safetensors"
        )
    rotary = model.model.rotary if hasattr(model.model, "rotary") else model.model.rotary_emb
    return Decoder(
        **shape,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        context=config.max_position_embeddings,
        inverse_frequency=rotary.inv_freq.detach().float(),
        rope_scale=float(rotary.attention_scaling),
        rope_type=rope_type,
        rope_theta=float(rope.get("rope_theta", 10_000.0)),
        tied=config.tie_word_embeddings,
        weights=_weights(model),
    )


def _of_tallyformer(config: Any) -> dict[str, Any]:
    return {
        "kv_heads": config.num_attention_heads,
        "head_dim": config.head_dim,
        "norm_type": config.norm_type,
        "norm_eps": config.norm_eps,
        "pre_norm": config.norm_placement == "pre",
        "gated": config.mlp_type == "swiglu",
        "interleaved": config.rope_layout == "interleaved",
    }


def _of_llama(config: Any, source: object) -> dict[str, Any]:
    if config.hidden_act not in ("silu", "swish"):
        raise ArtifactError(
            f"{source}: its hidden_act is {config.hidden_act!r}; only a Llama with silu is "
            "exported to other engines. Use --format safetensors"
        )
    return {
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "norm_type": "rmsnorm",
        "norm_eps": config.rms_norm_eps,
        "pre_norm": True,
        "gated": True,
        "interleaved": False,
    }


def _weights(model: Any) -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in NAMES:
            name = name.replace(theirs, ours)
        found[name.removeprefix("model.")] = tensor.detach().float()
    if model.config.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    return found
