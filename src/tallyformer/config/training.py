"""How one training run goes: the same section for pretrain, teacher, every distill phase, sft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tallyformer.config.base import Section, Use, where

Beta = Annotated[float, Field(ge=0, lt=1)]
"""How much of a running mean stays in each step."""


class OptimizerSection(Section):
    """How weights follow gradients. Norm scales, biases and embeddings are not decayed.

    adamw     Loshchilov & Hutter 2019
    muon      Muon (Jordan et al. 2024) for the blocks' matrices, AdamW for all else
    """

    uses: ClassVar[Mapping[str, Use]] = {
        "momentum": where("name", "muon"),
        "orthogonal_steps": where("name", "muon"),
    }
    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(8e-4, gt=0)
    momentum: float = Field(0.95, ge=0, lt=1)
    """Muon's: how much of the running mean of gradients stays in each step."""
    orthogonal_steps: int = Field(5, ge=1, le=10)
    """Muon's Newton-Schulz iterations; each costs a step as much as `hidden_size` more tokens."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    """Global gradient norm above which gradients are scaled down."""


class ScheduleSection(Section):
    """Learning rate over the run, as a share of `learning_rate`.

    cosine    linear from 0 over `warmup_fraction`, then cosine to `final_fraction`
    linear    the same with a straight line down
    wsd       warm-up, flat, then a straight line to `final_fraction` over `decay_fraction`
    onecycle  cosine from 1/`div` up over `warmup_fraction`, then cosine to 1/(`div`*`final_div`)
    constant  warm-up, then flat
    """

    uses: ClassVar[Mapping[str, Use]] = {
        "final_fraction": where("name", "cosine", "linear", "wsd"),
        "decay_fraction": where("name", "wsd"),
        "div": where("name", "onecycle"),
        "final_div": where("name", "onecycle"),
    }
    name: Literal["cosine", "linear", "wsd", "onecycle", "constant"] = "cosine"
    warmup_fraction: float = Field(0.02, ge=0, lt=1)
    final_fraction: float = Field(0.0, ge=0, le=1)
    decay_fraction: float = Field(0.2, gt=0, le=1)
    div: float = Field(20.0, ge=1)
    final_div: float = Field(1e4, ge=1)


class TrainSection(Section):
    """One run of the training loop. Its length is `epochs` or `steps`, not both.

    A step is one optimizer update over `micro_batch * gradient_accumulation` sequences.
    An epoch is one pass over the training data, counted in sequences.
    """

    one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("epochs", "steps"),)
    epochs: float | None = Field(None, ge=1e-6, le=1e6)
    steps: int | None = Field(None, ge=1, le=10**9)
    micro_batch: int = Field(32, ge=1, le=10**12)
    gradient_accumulation: int = Field(6, ge=1, le=10**12)
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    z_loss: float = Field(1e-4, ge=0)
    """Coefficient of mean(logsumexp^2); never part of a reported loss or perplexity."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Overrides the model's dropout for this run."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    attend_across_documents: bool = False
    evaluations: int = Field(10, ge=1, le=10**6)
    """How often validation runs, evenly spread; the last one is at the end."""
    evaluation_tokens: int = Field(200_000, ge=1)
    """At most so many validation tokens are used each time."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """Evaluations without a new best validation loss after which the run ends."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    """A resumable checkpoint is written at least so often, and at every evaluation."""
    log_every: int = Field(10, ge=1)
    """Steps between two lines of metrics."""


class PretrainSection(TrainSection):
    """Next-token prediction on the shards."""

    weights: dict[str, float] | None = None
    """Share of tokens by source; replaces the weights of `prepare.sources`."""
