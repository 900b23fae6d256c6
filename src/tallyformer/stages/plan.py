"""What a run will need, found out before it starts and without touching its folder.

Sizes come from the run's manifests where its stages are finished, else from a sample of the
sources. Memory and speed come from a rehearsal: see `tallyformer.stages.probe`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.config.data import TextSource
from tallyformer.config.model import ModelSection
from tallyformer.config.training import TrainSection
from tallyformer.data.mixture import epoch_shares
from tallyformer.errors import DataError, TokenizerError
from tallyformer.model.flops import count_parameters, flops_per_token
from tallyformer.stages.probe import rehearse, shortened
from tallyformer.stages.run import stages_of, write_recipe
from tallyformer.stages.source_sample import SampledSource, sample_sources

SAMPLE_BYTES = 1_000_000
"""Of each source; enough for a vocabulary of some ten thousand ids."""
_MB = 1e6


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


@dataclass(frozen=True)
class PlannedTraining:
    """One call of the training loop.

    Attributes:
        name: the stage, with the phase's number for distillation.
        stage: the stage.
        part: number of the phase, from 0.
        parameters: of the model.
        steps: optimizer steps, at most; None if the data's size is unknown.
        tokens: ids that the model reads in all steps.
        flops: of all steps, the teacher's included where it is known.
        epochs_by_source: how often each source's tokens are seen.
        mapped_mb: shards that the process maps into memory and reads.
        peak_memory_mb: largest resident memory, as the stage's manifest will report it.
        gpu_memory_mb: largest allocation on the GPU; None without one.
        seconds: training and validation.
        problem: why the last three are missing.
    """

    name: str
    stage: str
    part: int
    section: TrainSection
    context: int
    parameters: int
    steps: int | None
    tokens: int | None
    flops: float | None
    epochs_by_source: Mapping[str, float] = field(default_factory=dict)
    mapped_mb: float = 0.0
    peak_memory_mb: float | None = None
    gpu_memory_mb: float | None = None
    seconds: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything `tallyformer plan` says.

    Attributes:
        exact: sizes come from finished stages; otherwise they are estimates.
    """

    recipe: Recipe
    vocabulary: int
    exact: bool
    sources: list[PlannedSource]
    trainings: list[PlannedTraining]

    @property
    def peak_memory_mb(self) -> float | None:
        """Of the training stage that needs most."""
        return max((t.peak_memory_mb for t in self.trainings if t.peak_memory_mb), default=None)

    @property
    def seconds(self) -> float | None:
        """Of all training stages; None unless each is known."""
        known = [t.seconds for t in self.trainings]
        return None if None in known else sum(s for s in known if s is not None)


def make_plan(
    recipe: Recipe, folder: RunFolder, *, probe: bool, say: Callable[[str], None]
) -> Plan:
    """Plan a run.

    Args:
        folder: where it will be or has been started; only read.
        probe: rehearse, to know memory and time.
        say: told what is being done, as it may take minutes.

    Raises:
        DataError, TokenizerError: an input is missing or cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="tallyformer-plan-") as name:
        return _Planner(recipe, folder, Path(name), say).plan(probe)


class _Planner:
    """One plan in the making."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, place: Path, say: Callable[[str], None]
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.place = place
        self.say = say
        self.stage_folder = RunFolder(place / "run")
        self.small = recipe

    def plan(self, probe: bool) -> Plan:
        self.exact = all(self.folder.is_finished(s) for s in ("tokenizer", "prepare"))
        if self.exact:
            self._link_finished()
            self.sources = self._sources_from_manifest()
        else:
            self.sources = self._sources_from_sample()
        self.vocabulary = self._prepared()["vocab_size"]
        trainings = [self._with_length(t) for t in self._trainings()]
        if probe:
            trainings = self._measured(trainings)
        return Plan(self.recipe, self.vocabulary, self.exact, self.sources, trainings)

    def _link_finished(self) -> None:
        self.stage_folder.path.mkdir()
        for stage in ("tokenizer", "prepare"):
            self.stage_folder.stage(stage).symlink_to(self.folder.stage(stage).absolute())

    def _prepared(self) -> Mapping[str, Any]:
        return self.stage_folder.manifest("prepare").metrics

    def _sources_from_manifest(self) -> list[PlannedSource]:
        found = self._prepared()["sources"]
        return [
            PlannedSource(
                name,
                counts["documents"].get("train", 0),
                counts["tokens"].get("train", 0),
                counts["tokens"].get("validation", 0),
            )
            for name, counts in found.items()
        ]

    def _sources_from_sample(self) -> list[PlannedSource]:
        self.say("reading a sample of the sources")
        samples = sample_sources(self.recipe, self.place, SAMPLE_BYTES)
        self._prepare_small(samples)
        found = self._prepared()["sources"]
        return [self._estimated(s, found[s.name]) for s in samples]

    def _prepare_small(self, samples: list[SampledSource]) -> None:
        """Run the stages `tokenizer` and `prepare` themselves on the sample."""
        self.say("tokenising the sample")
        texts = [
            TextSource(name=s.name, paths=(str(s.file.absolute()),), weight=section.weight)
            for s, section in zip(samples, self.recipe.prepare.sources, strict=True)
        ]
        update = {"sources": tuple(texts), "workers": 1}
        prepare = self.recipe.prepare.model_copy(update=update)
        self.small = self.recipe.model_copy(update={"prepare": prepare})
        found = self._rehearse(["tokenizer", "prepare"])
        for stage in ("tokenizer", "prepare"):
            if "error" in found[stage]:
                kind = TokenizerError if stage == "tokenizer" else DataError
                raise kind(found[stage]["error"])

    def _estimated(self, sample: SampledSource, counts: Mapping[str, Any]) -> PlannedSource:
        """Scale the sample's counts up to the source."""
        if sample.text_bytes is None or sample.documents is None:
            return PlannedSource(sample.name, None, None, None)
        seen_bytes = sum(counts["text_bytes"].get(s, 0) for s in ("train", "validation"))
        seen_tokens = sum(counts["tokens"].get(s, 0) for s in ("train", "validation"))
        tokens = sample.text_bytes * seen_tokens / max(1, seen_bytes)
        held_out = self.recipe.prepare.validation_fraction
        return PlannedSource(
            sample.name,
            round(sample.documents * (1 - held_out)),
            round(tokens * (1 - held_out)),
            round(tokens * held_out),
        )

    def _rehearse(self, stages: list[str]) -> dict[str, dict[str, Any]]:
        file = self.place / "recipe.yaml"
        self.stage_folder.path.mkdir(exist_ok=True)
        write_recipe(self.small, file)
        return rehearse(file, self.stage_folder.path, stages)
