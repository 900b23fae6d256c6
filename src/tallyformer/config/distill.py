"""The `teacher` and `distill` sections."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from tallyformer.config.base import Section
from tallyformer.config.model import ModelSection
from tallyformer.config.training import PretrainSection, TrainSection


class TeacherSection(Section):
    """The frozen teacher: any causal language model (`source`), or one trained here (`model`)."""

    source: str | None = None
    """A local folder or a hub name, for example gpt2-medium."""
    revision: str | None = None
    """Commit, tag or branch of a hub name; by default its newest state."""
    model: ModelSection | None = None
    train: PretrainSection | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> TeacherSection:
        if (self.source is None) == (self.model is None):
            raise ValueError("teacher needs either source, or model and train")
        if (self.model is None) != (self.train is None):
            raise ValueError("teacher.model and teacher.train come together")
        if self.revision is not None and self.source is None:
            raise ValueError("teacher.revision is for teacher.source. Remove it")
        return self


class DistillPhase(TrainSection):
    """One phase: loss = alpha * T^2 * KL(teacher_T || student_T) + (1 - alpha) * CE.

    Hinton et al. 2015, eq. 2-4. The KL is over the ids that both models know.
    """

    temperature: float = Field(2.5, gt=0)
    alpha: float = Field(0.7, ge=0, le=1)


class DistillSection(Section):
    """Knowledge distillation in any number of phases, each starting from the last one's best."""

    phases: tuple[DistillPhase, ...] = Field(min_length=1)
    weights: dict[str, float] | None = None
    cache: Literal["off", "top-k"] = "off"
    """`top-k`: store the teacher's k largest probabilities and the tail's mass once, then reuse."""
    cache_top_k: int = Field(64, ge=1, le=65535)
    cache_folder: str | None = None
    """Where the pass is stored, to be shared between runs; by default in the stage's folder."""

    @field_validator("cache", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        """YAML 1.1 reads the word off as a truth value."""
        return "off" if value is False else value
