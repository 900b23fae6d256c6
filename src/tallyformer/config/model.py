"""The `model` and `tokenizer` sections: what is trained, and on which vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tallyformer.config.base import Section, Use, where
from tallyformer.config.presets import PRESETS


class ModelSection(Section):
    """Sizes and kinds of one decoder. The defaults are `tally-51m`.

    The vocabulary size is missing on purpose: it is the tokenizer's.
    """

    preset: str | None = None
    """Fills every field that the recipe does not set itself, and is None from then on."""
    hidden_size: int = Field(512, ge=2)
    num_hidden_layers: int = Field(8, ge=1)
    num_attention_heads: int = Field(8, ge=1)
    intermediate_size: int = Field(2048, ge=1)
    max_position_embeddings: int = Field(256, ge=8)
    norm_type: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_placement: Literal["pre", "post"] = "pre"
    norm_eps: float = Field(1e-8, gt=0)
    mlp_type: Literal["gelu", "swiglu"] = "gelu"
    attention_bias: bool = False
    proj_bias: bool = True
    mlp_in_bias: bool = False
    mlp_out_bias: bool = True
    rope_layout: Literal["interleaved", "half"] = "interleaved"
    rope_theta: float = Field(10000.0, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    initializer_range: float = Field(0.02, gt=0)
    tie_word_embeddings: bool = True

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
                "preset, or the keys that it shall fill"
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
    """Where the vocabulary comes from.

    `pretrained`: a local folder (vocab.json + merges.txt, or tokenizer.json) or a hub name.
    `train`: a byte-level BPE of `vocab_size` ids learnt from the prepared sources.
    """

    uses: ClassVar[Mapping[str, Use]] = {
        "source": where("kind", "pretrained"),
        "revision": where("kind", "pretrained"),
        "vocab_size": where("kind", "train"),
        "train_bytes": where("kind", "train"),
    }
    kind: Literal["pretrained", "train"] = "pretrained"
    source: str = "gpt2"
    revision: str | None = None
    """Commit, tag or branch of a hub name; by default its newest state."""
    vocab_size: int = Field(8192, ge=260, le=2**31 - 1)
    train_bytes: int = Field(50_000_000, ge=1)
    """Bytes of training text read to learn the merges, spread evenly over the sources."""
