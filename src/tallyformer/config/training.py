"""How one training run goes: the same section for pretrain, teacher, every distill phase, sft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from tallyformer.config.base import Section, Use, where

Beta = Annotated[float, Field(ge=0, lt=1)]
"""How much of a running mean stays in each step."""


LOOKED_AT_ONLY = ("sample_tokens", "sample_prompts")
"""Keys of `TrainSection` that no weight depends on, so that a begun run may change them."""


class OptimizerSection(Section):
    """How weights follow gradients."""

    uses: ClassVar[Mapping[str, Use]] = {
        "momentum": where("name", "muon"),
        "orthogonal_steps": where("name", "muon"),
    }
    name: Literal["adamw", "muon"] = "adamw"
    """AdamW (Loshchilov & Hutter 2019) for everything, or Muon (Jordan et al. 2024) for the blocks'
    matrices and AdamW for all else."""
    learning_rate: float = Field(8e-4, gt=0)
    """The highest one of the schedule."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """How much of the running mean of gradients stays in each step."""
    orthogonal_steps: int = Field(5, ge=1, le=10)
    """Newton-Schulz iterations; each costs a step as much as `hidden_size` more tokens."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """AdamW's: how much of the running means of the gradients and of their squares stays."""
    eps: float = Field(1e-8, gt=0)
    """AdamW's: added to the root of the mean square."""
    weight_decay: float = Field(0.1, ge=0)
    """On matrices; not on norms, biases, embeddings and the head."""
    clip_norm: float = Field(1.0, gt=0)
    """Gradients of a larger global norm are scaled down to it."""


class ScheduleSection(Section):
    """Learning rate over the run, as a share of `learning_rate`.

    - `cosine`: linear from 0 over `warmup_fraction`, then cosine to `final_fraction`
    - `linear`: the same with a straight line down
    - `wsd`: warm-up, flat, then a straight line to `final_fraction` over `decay_fraction`
    - `onecycle`: cosine from 1/`div` up over `warmup_fraction`, then cosine to 1/(`div` *
      `final_div`)
    - `constant`: warm-up, then flat
    """

    uses: ClassVar[Mapping[str, Use]] = {
        "final_fraction": where("name", "cosine", "linear", "wsd"),
        "decay_fraction": where("name", "wsd"),
        "div": where("name", "onecycle"),
        "final_div": where("name", "onecycle"),
    }
    name: Literal["cosine", "linear", "wsd", "onecycle", "constant"] = "cosine"
    """The form of the curve, see above."""
    warmup_fraction: float = Field(0.02, ge=0, lt=1)
    """Share of the steps that go up."""
    final_fraction: float = Field(0.0, ge=0, le=1)
    """The rate at the end, as a share of the highest."""
    decay_fraction: float = Field(0.2, gt=0, le=1)
    """Share of the steps that go down."""
    div: float = Field(20.0, ge=1)
    """Starts at the highest rate / `div`."""
    final_div: float = Field(1e4, ge=1)
    """Ends at the highest rate / (`div` * `final_div`)."""


class TrainSection(Section):
    """One run of the training loop: what `pretrain`, `teacher.train`, each phase and `sft` share.

    A step is one optimizer update over `micro_batch * gradient_accumulation` sequences.
    An epoch is one pass over the training data, counted in sequences.
    """

    one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("epochs", "steps"),)
    uses: ClassVar[Mapping[str, Use]] = {
        "sample_prompts": Use("sample_tokens above 0", lambda section: section.sample_tokens > 0),
    }
    epochs: float | None = Field(None, ge=1e-6, le=1e6)
    """Length of the run in passes over the data; may be a fraction."""
    steps: int | None = Field(None, ge=1, le=10**9)
    """Length in optimizer steps."""
    micro_batch: int = Field(32, ge=1, le=10**12)
    """Sequences in one forward pass."""
    gradient_accumulation: int = Field(6, ge=1, le=10**12)
    """Forward passes in one step."""
    optimizer: OptimizerSection = OptimizerSection()
    """How weights follow gradients."""
    schedule: ScheduleSection = ScheduleSection()
    """The learning rate over the run."""
    z_loss: float = Field(1e-4, ge=0)
    """Coefficient of mean(logsumexp^2); never part of a reported loss or perplexity."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Instead of the model's, for this run."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Number format of the matrix products, see [Training](training.md#precision)."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile, see [Training](training.md#torchcompile)."""
    attend_across_documents: bool = False
    """Let the documents in one sequence see each other."""
    evaluations: int = Field(10, ge=1, le=10**6)
    """How often validation runs, spread evenly; the last one is at the end."""
    evaluation_tokens: int = Field(200_000, ge=1)
    """At most this many validation ids each time, but at least a sequence of each source."""
    sample_tokens: int = Field(24, ge=0, le=1000)
    """At each validation the model continues a few texts, or answers questions, with at most this
    many ids, for a person to read; 0 writes none. See [Training](training.md#samples)."""
    sample_prompts: tuple[str, ...] = Field((), max_length=16)
    """What it is given; without any, beginnings of validation texts, or in `sft` held-out
    questions."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """End after this many validations without a new best loss."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    """A checkpoint is written at least this often, and at every validation."""
    log_every: int = Field(10, ge=1)
    """Steps between two lines of metrics."""

    @field_validator("sample_prompts")
    @classmethod
    def _prompts_begin_something(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for place, prompt in enumerate(prompts):
            if not prompt.strip():
                raise ValueError(f"{place} is empty. Write a text, or take it out")
        return prompts


class PretrainSection(TrainSection):
    """Next-token prediction on the shards."""

    weights: dict[str, float] | None = None
    """Share of tokens by source, instead of the weights in `prepare.sources`; a source that is not
    named takes no part."""
