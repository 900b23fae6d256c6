"""What a plan says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tallyformer.config.training import TrainSection


@dataclass(frozen=True)
class PlannedSource:
    """A text source's size.

    Attributes:
        documents, tokens: of the training split; None if unknown.
        validation_tokens: of the other one.
    """

    name: str
    documents: int | None
    tokens: int | None
    validation_tokens: int | None


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
class Measured:
    """What the rehearsal of one training says about the whole of it.

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
        measured: by name of a training, or the reason why it could not be rehearsed.
    """

    vocabulary: int
    exact: bool
    sources: list[PlannedSource]
    trainings: list[PlannedTraining]
    measured: Mapping[str, Measured | str]

    @property
    def peak_memory_mb(self) -> float | None:
        """Of the training that needs most."""
        return max((m.peak_memory_mb for m in self._known), default=None)

    @property
    def gpu_memory_mb(self) -> float | None:
        """Of the training that needs most on the GPU; None without one."""
        known = [m.gpu_memory_mb for m in self._known if m.gpu_memory_mb is not None]
        return max(known, default=None)

    @property
    def _known(self) -> list[Measured]:
        return [found for found in self.measured.values() if isinstance(found, Measured)]

    @property
    def seconds(self) -> float | None:
        """Of all trainings; None unless each is known."""
        total = 0.0
        for training in self.trainings:
            found = self.measured.get(training.name)
            if not isinstance(found, Measured) or found.seconds is None:
                return None
            total += found.seconds
        return total
