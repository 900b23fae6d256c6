"""The `model` and `tokenizer` sections: what is trained, and on which vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tallyformer.config.base import Section, Use, where
from tallyformer.config.presets import PRESETS


class ModelSection(Section):
    """Sizes and kinds of one decoder. The defaults are `tally-51m`.

    The vocabulary's size is the tokenizer's.
    """

    preset: str | None = None
    """A named shape, which fills the keys that are not given: `tally-51m`, or `tally-51m-llama`
    (SwiGLU, no biases, RoPE in halves: exported as a stock Llama)."""
    hidden_size: int = Field(512, ge=2)
    """Width D."""
    num_hidden_layers: int = Field(8, ge=1)
    """Blocks."""
    num_attention_heads: int = Field(8, ge=1)
    """Must divide D into even head sizes E."""
    intermediate_size: int = Field(2048, ge=1)
    """Width of the MLP."""
    max_position_embeddings: int = Field(256, ge=8)
    """Context T: most ids of a sequence."""
    norm_type: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """RMSNorm or LayerNorm."""
    norm_placement: Literal["pre", "post"] = "pre"
    """`pre`: x + f(norm(x)); `post`: norm(x + f(x))."""
    norm_eps: float = Field(1e-8, gt=0)
    """Added inside the root."""
    mlp_type: Literal["gelu", "swiglu"] = "gelu"
    """`gelu`: fc2(gelu(fc1(x))); `swiglu`: fc2(silu(gate(x)) * fc1(x))."""
    attention_bias: bool = False
    """Biases of query, key, value."""
    proj_bias: bool = True
    """Bias of the attention's output."""
    mlp_in_bias: bool = False
    """Bias of fc1 (and gate)."""
    mlp_out_bias: bool = True
    """Bias of fc2."""
    rope_layout: Literal["interleaved", "half"] = "interleaved"
    """`interleaved`: channels 2i and 2i + 1 rotate together; `half`: i and i + E/2."""
    rope_theta: float = Field(10000.0, gt=0)
    """Base of the rotary frequencies."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of embeddings, attention weights, both residual branches."""
    initializer_range: float = Field(0.02, gt=0)
    """Standard deviation; proj and fc2 get it / sqrt(2 * blocks)."""
    tie_word_embeddings: bool = True
    """Head and embedding are one matrix."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("preset") is None:
            return values
        preset = values["preset"]
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is unknown; there are: {', '.join(PRESETS)}")
        given = {name: value for name, value in values.items() if name != "preset"}
        if set(cls.model_fields) <= {"preset", *given}:
            raise ValueError(
                f"preset {preset!r} fills the keys that are not given, and all are given. Remove "
                "preset, or the keys that it should fill"
            )
        return {**PRESETS[preset], **given}

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelSection:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}; change one of the two"
            )
        if (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError(
                "RoPE rotates pairs, so hidden_size / num_attention_heads must be even; "
                f"it is {self.hidden_size // self.num_attention_heads}"
            )
        return self


class TokenizerSection(Section):
    """Where the vocabulary comes from."""

    uses: ClassVar[Mapping[str, Use]] = {
        "source": where("kind", "pretrained"),
        "revision": where("kind", "pretrained"),
        "vocab_size": where("kind", "train"),
        "train_bytes": where("kind", "train"),
    }
    kind: Literal["pretrained", "train"] = "pretrained"
    """`pretrained` loads `source`; `train` learns the merges of a byte-level BPE from
    `prepare.sources`."""
    source: str = "gpt2"
    """Folder with tokenizer.json, or vocab.json and merges.txt; or a hub name."""
    revision: str | None = None
    """Commit, tag or branch of a hub name; without it, its newest state."""
    vocab_size: int = Field(8192, ge=260, le=2**31 - 1)
    """All ids, control tokens included."""
    train_bytes: int = Field(50_000_000, ge=1)
    """Bytes of training text read to learn the merges, spread evenly over the sources."""
