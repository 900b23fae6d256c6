"""`ModelShape`: all that decides a decoder's tensors and arithmetic, read without torch.

A folder's config.json becomes one description for two kinds of model: ours, and a stock Llama,
whose shape ours can have too (`model/llama.py`). What reads it needs to know neither transformers
nor the names that each kind gives its tensors.

Shapes: V vocabulary, D hidden size, L blocks, H heads, G heads of keys and values, E head size,
F MLP width, R = E / 2 rotated pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from tallyformer.model.config_fields import Fields, UnsupportedModelError
from tallyformer.model.quantized import METHOD
from tallyformer.model.rope_frequencies import rope_frequencies, rotary_settings
from tallyformer.quoting import quoted

OURS, LLAMA = "tallyformer", "llama"


class Affine(NamedTuple):
    """Names of the tensors of a linear layer or of a norm."""

    weight: str
    bias: str | None


class BlockNames(NamedTuple):
    """Names of a block's tensors. A linear layer's weight is (outputs, inputs)."""

    attn_norm: Affine
    query: Affine
    key: Affine
    value: Affine
    proj: Affine
    mlp_norm: Affine
    fc1: Affine
    gate: Affine | None
    fc2: Affine


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder: embedding, blocks, final norm, head.

    Attributes:
        model_type: "tallyformer" or "llama", which decides the names of the tensors alone.
        vocab: V, rows of the embedding and of the head.
        hidden: D.
        layers: L.
        heads: H, each of `head_dim` channels; H * E need not be D.
        kv_heads: G; `heads / kv_heads` neighbouring heads share keys and values.
        head_dim: E, even.
        ffn: F.
        context: tokens it was trained to read.
        norm: "rms" is `x / sqrt(mean(x**2) + eps) * weight`, "layer" is LayerNorm.
        norm_placement: "pre" is `x + f(norm(x))`, "post" is `norm(x + f(x))`; the final norm comes
            after the last block in both.
        norm_eps: inside the root.
        norm_bias: in every norm.
        mlp: "gelu" is `fc2(gelu(fc1(x)))` with the exact (erf) GELU, "swiglu" is
            `fc2(silu(gate(x)) * fc1(x))`.
        attention_bias: of query, key and value.
        proj_bias: of the attention's output projection.
        mlp_in_bias: of `fc1` and `gate`.
        mlp_out_bias: of `fc2`.
        rope_layout: which channels of a head turn together: "interleaved" 2r and 2r + 1, "half" r
            and r + R.
        inv_freq: R float32 numbers, radians per position.
        attention_scaling: factor on every cosine and sine.
        tied: the head is the embedding's matrix.
        eos_ids: what config.json says ends a text.
    """

    model_type: str
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    context: int
    norm: Literal["rms", "layer"]
    norm_placement: Literal["pre", "post"]
    norm_eps: float
    norm_bias: bool
    mlp: Literal["gelu", "swiglu"]
    attention_bias: bool
    proj_bias: bool
    mlp_in_bias: bool
    mlp_out_bias: bool
    rope_layout: Literal["interleaved", "half"]
    inv_freq: tuple[float, ...]
    attention_scaling: float
    tied: bool
    eos_ids: tuple[int, ...]

    @property
    def embedding(self) -> str:
        """Name of the embedding's matrix, (V, D)."""
        return _NAMES[self.model_type]["embedding"]

    @property
    def head(self) -> str:
        """Name of the head's matrix, (V, D); the embedding's where they are tied."""
        return self.embedding if self.tied else "lm_head.weight"

    @property
    def final_norm(self) -> Affine:
        """Names of the norm before the head."""
        return _affine(_NAMES[self.model_type]["final_norm"], self.norm_bias)

    def block(self, layer: int) -> BlockNames:
        """Names of the tensors of block `layer`, counted from 0."""
        names = _NAMES[self.model_type]

        def named(part: str, bias: bool) -> Affine:
            return _affine(f"{names['blocks']}.{layer}.{names[part]}", bias)

        return BlockNames(
            attn_norm=named("attn_norm", self.norm_bias),
            query=named("query", self.attention_bias),
            key=named("key", self.attention_bias),
            value=named("value", self.attention_bias),
            proj=named("proj", self.proj_bias),
            mlp_norm=named("mlp_norm", self.norm_bias),
            fc1=named("fc1", self.mlp_in_bias),
            gate=named("gate", self.mlp_in_bias) if self.mlp == "swiglu" else None,
            fc2=named("fc2", self.mlp_out_bias),
        )

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor the model needs, by name, with its shape."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sizes = {
            "query": (wide, self.hidden),
            "key": (narrow, self.hidden),
            "value": (narrow, self.hidden),
            "proj": (self.hidden, wide),
            "fc1": (self.ffn, self.hidden),
            "gate": (self.ffn, self.hidden),
            "fc2": (self.hidden, self.ffn),
        }
        table = (self.vocab, self.hidden)
        found: dict[str, tuple[int, ...]] = {self.embedding: table, self.head: table}
        for layer in range(self.layers):
            for part, names in self.block(layer)._asdict().items():
                if names is not None:
                    found |= _shapes(names, sizes.get(part, (self.hidden,)))
        return found | _shapes(self.final_norm, (self.hidden,))


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a config.json describes.

    Raises:
        UnsupportedModelError: a model of another kind, or a setting that changes the arithmetic in
            a way that is not described here. transformers may know it.
    """
    kind = config.get("model_type")
    if kind not in (OURS, LLAMA):
        raise UnsupportedModelError(f"model_type: {quoted(kind)} is not one of {OURS}, {LLAMA}")
    if config.get("per_layer_config") is not None:
        raise UnsupportedModelError("per_layer_config: not known here")
    quantization = config.get("quantization_config")
    if quantization is not None and not (
        isinstance(quantization, Mapping) and quantization.get("quant_method") == METHOD
    ):
        raise UnsupportedModelError("quantization_config: not a method that is known here")
    return _ours(Fields(config)) if kind == OURS else _llama(Fields(config))


def _ours(fields: Fields) -> ModelShape:
    """Defaults are those of `TallyFormerConfig`."""
    hidden, heads = fields.size("hidden_size", 512), fields.size("num_attention_heads", 8)
    head_dim = hidden // heads
    if hidden % heads:
        raise UnsupportedModelError(f"num_attention_heads: {heads} do not divide {hidden}")
    frequencies, scaling = rope_frequencies(
        rotary_settings(fields, context=256), _even(head_dim), ours=True
    )
    norm = fields.choice("norm_type", "rmsnorm", {"rmsnorm": "rms", "layernorm": "layer"})
    norm_bias = fields.flag("norm_bias", False)
    if norm_bias and norm == "rms":
        raise UnsupportedModelError("norm_bias: RMSNorm has none")
    return ModelShape(
        model_type=OURS,
        vocab=fields.size("vocab_size", 50260),
        hidden=hidden,
        layers=fields.size("num_hidden_layers", 8),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        ffn=fields.size("intermediate_size", 2048),
        context=fields.size("max_position_embeddings", 256),
        norm=cast(Any, norm),
        norm_placement=cast(Any, fields.choice("norm_placement", "pre", _same("pre", "post"))),
        norm_eps=fields.number("norm_eps", 1e-8),
        norm_bias=norm_bias,
        mlp=cast(Any, fields.choice("mlp_type", "gelu", _same("gelu", "swiglu"))),
        attention_bias=fields.flag("attention_bias", False),
        proj_bias=fields.flag("proj_bias", True),
        mlp_in_bias=fields.flag("mlp_in_bias", False),
        mlp_out_bias=fields.flag("mlp_out_bias", True),
        rope_layout=cast(
            Any, fields.choice("rope_layout", "interleaved", _same("interleaved", "half"))
        ),
        inv_freq=frequencies,
        attention_scaling=scaling,
        tied=fields.flag("tie_word_embeddings", True),
        eos_ids=fields.ids("eos_token_id", 50256),
    )


def _llama(fields: Fields) -> ModelShape:
    """Defaults are those of transformers' `LlamaConfig`."""
    hidden, heads = fields.size("hidden_size", 4096), fields.size("num_attention_heads", 32)
    if hidden % heads:
        raise UnsupportedModelError(f"num_attention_heads: {heads} do not divide {hidden}")
    kv_heads = fields.size("num_key_value_heads", None, instead_of_null=heads)
    if heads % kv_heads:
        raise UnsupportedModelError(f"num_key_value_heads: {kv_heads} do not divide {heads}")
    head_dim = fields.size("head_dim", None, instead_of_null=hidden // heads)
    frequencies, scaling = rope_frequencies(
        rotary_settings(fields, context=2048), _even(head_dim), ours=False
    )
    fields.choice("hidden_act", "silu", _same("silu"))
    attention_bias, mlp_bias = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    return ModelShape(
        model_type=LLAMA,
        vocab=fields.size("vocab_size", 32000),
        hidden=hidden,
        layers=fields.size("num_hidden_layers", 32),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=fields.size("intermediate_size", 11008),
        context=fields.size("max_position_embeddings", 2048),
        norm="rms",
        norm_placement="pre",
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        norm_bias=False,
        mlp="swiglu",
        attention_bias=attention_bias,
        proj_bias=attention_bias,
        mlp_in_bias=mlp_bias,
        mlp_out_bias=mlp_bias,
        rope_layout="half",
        inv_freq=frequencies,
        attention_scaling=scaling,
        tied=fields.flag("tie_word_embeddings", False),
        eos_ids=fields.ids("eos_token_id", 2),
    )


_NAMES: Mapping[str, Mapping[str, str]] = {
    OURS: {
        "embedding": "model.token_embed.weight",
        "blocks": "model.blocks",
        "attn_norm": "attn_norm",
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "proj": "attention.proj",
        "mlp_norm": "mlp_norm",
        "fc1": "mlp.fc1",
        "gate": "mlp.gate",
        "fc2": "mlp.fc2",
        "final_norm": "model.final_norm",
    },
    LLAMA: {
        "embedding": "model.embed_tokens.weight",
        "blocks": "model.layers",
        "attn_norm": "input_layernorm",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "proj": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
        "fc1": "mlp.up_proj",
        "gate": "mlp.gate_proj",
        "fc2": "mlp.down_proj",
        "final_norm": "model.norm",
    },
}


def _affine(layer: str, bias: bool) -> Affine:
    return Affine(f"{layer}.weight", f"{layer}.bias" if bias else None)


def _shapes(names: Affine, weight: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {names.weight: weight} | ({names.bias: weight[:1]} if names.bias else {})


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _even(head_dim: int) -> int:
    if head_dim % 2:
        raise UnsupportedModelError(f"head size: {head_dim} is odd, and channels turn in pairs")
    return head_dim
