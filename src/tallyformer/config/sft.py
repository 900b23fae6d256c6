"""The `sft` section: supervised fine-tuning with LoRA."""

from __future__ import annotations

from pydantic import Field, model_validator

from tallyformer.config.base import Section
from tallyformer.config.data import PairSource
from tallyformer.config.training import TrainSection


class LoraSection(Section):
    """PEFT's LoRA (Hu et al. 2021): W + alpha/r * B A on the named modules."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: int = Field(32, ge=1)
    """The adapter is scaled by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """On the adapter's input."""
    target_modules: tuple[str, ...] = ("query", "key", "value", "proj", "fc1", "fc2")
    """Matrices that get an adapter."""
    modules_to_save: tuple[str, ...] = ("lm_head",)
    """Modules that are trained whole."""
    train_control_tokens: bool = False
    """Train the embedding rows of `<|user|>` and `<|assistant|>`, and no other row."""

    @model_validator(mode="after")
    def _rows_once(self) -> LoraSection:
        fields = {"modules_to_save": ("lm_head", "token_embed"), "target_modules": ("token_embed",)}
        for field, embeddings in fields.items():
            twice = [name for name in embeddings if name in getattr(self, field)]
            if self.train_control_tokens and twice:
                raise ValueError(
                    f"train_control_tokens trains rows that {twice[0]!r} in {field} trains anyway. "
                    "Remove one of the two"
                )
        return self


class SftSection(TrainSection):
    """Response-only training on conversations. Whole conversations are packed into rows."""

    sources: tuple[PairSource, ...] = Field(min_length=1)
    """Where the pairs and conversations are."""
    lora: LoraSection = LoraSection()
    """The adapter."""
    join_pairs: int = Field(1, ge=1)
    """Up to this many training pairs follow one another in one conversation, so that the model
    learns that a question may change the subject."""
    replay: float = Field(0.2, ge=0, lt=1)
    """Share of the rows that are text of pretraining, so that it is not forgotten."""
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of contexts and prompts held out."""

    @model_validator(mode="after")
    def _names_differ(self) -> SftSection:
        names = [s.name for s in self.sources]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"source names must differ; used twice: {', '.join(twice)}")
        return self
