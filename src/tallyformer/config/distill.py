"""The `teacher` and `distill` sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tallyformer.config.base import Section, Use, where, with_one_of
from tallyformer.config.model import ModelSection
from tallyformer.config.training import PretrainSection, TrainSection


class TeacherSection(Section):
    """The frozen teacher: any causal language model (`source`), or one trained here (`model`).

    It is for `distill`, which needs it.
    """

    uses: ClassVar[Mapping[str, Use]] = {
        "revision": with_one_of("source"),
        "train": with_one_of("model"),
    }
    one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("source", "model"),)
    source: str | None = None
    """A ready teacher: folder or hub name, for example gpt2-medium."""
    revision: str | None = None
    """Commit, tag or branch of a hub name; without it, its newest state."""
    model: ModelSection | None = None
    """The shape of a teacher that is trained here."""
    train: PretrainSection | None = None
    """How it is trained."""

    @model_validator(mode="after")
    def _model_is_trained(self) -> TeacherSection:
        if self.model and not self.train:
            raise ValueError("model is trained here, so it needs train")
        return self


class DistillPhase(TrainSection):
    """One phase: loss = alpha * T^2 * KL(teacher_T || student_T) + (1 - alpha) * CE.

    Hinton et al. 2015, eq. 2-4. The KL is over the ids that both models know.
    """

    temperature: float = Field(2.5, gt=0)
    """T of both distributions."""
    alpha: float = Field(0.7, ge=0, le=1)
    """Weight of the KL; 1 - alpha is that of the cross-entropy."""


class DistillSection(Section):
    """Knowledge distillation in any number of phases, each starting from the last one's best."""

    uses: ClassVar[Mapping[str, Use]] = {
        "cache_top_k": where("cache", "top-k"),
        "cache_folder": where("cache", "top-k"),
    }
    phases: tuple[DistillPhase, ...] = Field(min_length=1)
    """Each starts from the best weights of the one before."""
    weights: dict[str, float] | None = None
    """Share of tokens by source, as in `pretrain`."""
    cache: Literal["off", "top-k"] = "off"
    """`top-k`: store the teacher's k largest probabilities and the tail's mass once, then reuse."""
    cache_top_k: int = Field(64, ge=1, le=65535)
    """Ids stored for each position."""
    cache_folder: str | None = None
    """Where the pass is stored, to be shared between runs; by default in the stage's folder."""
