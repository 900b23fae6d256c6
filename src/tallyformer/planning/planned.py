"""What a plan says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tallyformer.config.training import TrainSection
from tallyformer.preflight.foreseen import SourceSize


@dataclass(frozen=True, kw_only=True)
class PlannedTraining:
    """One call of the training loop.

    Attributes:
        stage: the stage.
        part: number of the phase of distillation, from 0; else 0.
        section: how it goes.
        parameters: of the model that is trained.
        steps: optimizer steps, at most; None if the size of the data is unknown.
        tokens: ids that the model reads in these steps, padding included.
        validation_tokens: ids of one validation.
        flops_per_token: of the model that is trained, forward and backward.
        teacher_flops_per_token: forward; 0 without a teacher, or one of unknown size.
        epochs_by_source: how often each source's tokens are seen.
        context: ids of a sequence.
        trained_parameters: those that get gradients.
        teacher_parameters: of a teacher of known size that is held beside the model.
        activation_bytes: what a token's forward pass leaves for the backward pass.
        mapped_mb: shards that the process maps into memory and reads, in MB (10^6 bytes).
    """

    stage: str
    part: int = 0
    section: TrainSection
    parameters: int
    steps: int | None
    tokens: int | None
    validation_tokens: int
    flops_per_token: float
    teacher_flops_per_token: float = 0.0
    epochs_by_source: Mapping[str, float] = field(default_factory=dict)
    context: int
    trained_parameters: int
    teacher_parameters: int = 0
    activation_bytes: float = 0.0
    mapped_mb: float = 0.0

    @property
    def name(self) -> str:
        """The stage, with the phase's number for distillation."""
        return f"{self.stage} {self.part + 1}" if self.stage == "distill" else self.stage

    @property
    def flops(self) -> float | None:
        """Of all steps."""
        if self.tokens is None:
            return None
        return self.tokens * (self.flops_per_token + self.teacher_flops_per_token)


@dataclass(frozen=True)
class Needs:
    """What one training needs.

    Attributes:
        peak_memory_mb: largest resident memory, as the stage's manifest will report it.
        gpu_memory_mb: largest allocation on the GPU; None without one.
        seconds: training and validation; None if the number of steps is unknown.
    """

    peak_memory_mb: float
    gpu_memory_mb: float | None
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """Everything `tallyformer plan` says.

    Attributes:
        exact: sizes come from finished stages; otherwise they are estimates.
        notes: what is assumed, or could not be tried, and why.
        by_formula: needs of each training by its name.
        measured: the same of those that were rehearsed.
    """

    vocabulary: int
    exact: bool
    sources: list[SourceSize]
    trainings: list[PlannedTraining]
    notes: list[str]
    by_formula: Mapping[str, Needs]
    measured: Mapping[str, Needs]

    def needs(self, training: PlannedTraining) -> Needs:
        """Measured, or else by formula."""
        return self.measured.get(training.name) or self.by_formula[training.name]

    @property
    def peak_memory_mb(self) -> float:
        """Of the training that needs most."""
        return max(self.needs(training).peak_memory_mb for training in self.trainings)

    @property
    def gpu_memory_mb(self) -> float | None:
        """Of the training that needs most on the GPU; None without one."""
        on_gpu = (self.needs(training).gpu_memory_mb for training in self.trainings)
        return max((size for size in on_gpu if size is not None), default=None)

    @property
    def seconds(self) -> float | None:
        """Of all trainings; None unless each is known."""
        each = [self.needs(training).seconds for training in self.trainings]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) if len(known) == len(each) else None
