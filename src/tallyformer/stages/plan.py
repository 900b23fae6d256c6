"""What a run will need, found out before it starts and without touching its folder.

Sizes come from the run's manifests where its stages are finished, else from a sample of the
sources. Memory and speed come from a rehearsal: see `tallyformer.stages.probe`.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.config.data import TextSource
from tallyformer.errors import DataError, Interrupted, TokenizerError
from tallyformer.stages.plan_lengths import planned_trainings
from tallyformer.stages.plan_types import Measured, Plan, PlannedSource, PlannedTraining
from tallyformer.stages.probe import rehearse, shortened
from tallyformer.stages.run import write_recipe
from tallyformer.stages.source_sample import SampledSource, sample_sources
from tallyformer.tokenizer import Tokenizer
from tallyformer.training.compiling import wants_compile
from tallyformer.training.hardware import pick_device

_SAMPLE_BYTES = 1_000_000
_SAMPLE_BYTES_PER_ID = 100
"""A sample of this size for each id of a vocabulary supports learning that vocabulary."""
_FORWARD_SHARE = 3
"""A validation token costs the forward pass alone, 1/3 of a training token."""


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
        RunError: the rehearsal died, for example for lack of memory.
        Interrupted: SIGTERM arrived. As with Ctrl-C, nothing is left over.
    """
    with _sigterm_raises(), tempfile.TemporaryDirectory(prefix="tallyformer-plan-") as name:
        rehearsal = _Rehearsal(recipe, Path(name))
        exact = all(folder.is_finished(s) for s in ("tokenizer", "prepare"))
        if exact:
            rehearsal.link(folder)
            sources = rehearsal.sizes()
        else:
            say("reading and tokenising a sample of the sources")
            sources = rehearsal.estimated_sizes()
        tokenizer = Tokenizer.from_pretrained(rehearsal.run.stage("tokenizer"))
        trainings = list(planned_trainings(recipe, sources, tokenizer))
        measured: Mapping[str, Measured | str] = {}
        if probe:
            stages = list(dict.fromkeys(t.stage for t in trainings))
            say(f"rehearsing a few steps of {', '.join(stages)}")
            measured = rehearsal.measure(trainings, stages)
        return Plan(tokenizer.vocab_size, exact, sources, trainings, measured)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM as an exception inside the block: a plan has no work to save, only to clear away."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted("plan: stopped. Nothing was written; start it again", number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


class _Rehearsal:
    """A shortened run in a temporary folder.

    Args:
        recipe: the real one.
        place: an empty folder.
    """

    def __init__(self, recipe: Recipe, place: Path) -> None:
        self._recipe = self._short = recipe
        self._place = place
        self.run = RunFolder(place / "run")
        self.run.path.mkdir()

    def link(self, folder: RunFolder) -> None:
        """Use the real run's tokenizer and shards."""
        for stage in ("tokenizer", "prepare"):
            self.run.stage(stage).symlink_to(folder.stage(stage).absolute())

    def sizes(self) -> list[PlannedSource]:
        """What `prepare` counted."""
        return [
            PlannedSource(
                name,
                counts["documents"]["train"],
                counts["tokens"]["train"],
                counts["tokens"]["validation"],
            )
            for name, counts in self._prepared()["sources"].items()
        ]

    def estimated_sizes(self) -> list[PlannedSource]:
        """Run the stages `tokenizer` and `prepare` on a sample, and scale their counts up."""
        size = max(_SAMPLE_BYTES, _SAMPLE_BYTES_PER_ID * self._recipe.tokenizer.vocab_size)
        samples = sample_sources(self._recipe, self._place, size)
        self._short = _on_samples(self._recipe, samples)
        found = self._rehearse(["tokenizer", "prepare"])
        for stage, kind in (("tokenizer", TokenizerError), ("prepare", DataError)):
            if "error" in found[stage]:
                raise kind(found[stage]["error"])
        counted = self._prepared()["sources"]
        held_out = self._recipe.prepare.validation_fraction
        return [_scaled(sample, counted[sample.name], held_out) for sample in samples]

    def measure(
        self, trainings: Sequence[PlannedTraining], stages: list[str]
    ) -> dict[str, Measured | str]:
        """Memory and time of each training by name, or why they are unknown."""
        self._short = _shortened_trainings(self._short, trainings)
        mapped = self._mapped_mb()
        found = self._rehearse(stages)
        result: dict[str, Measured | str] = {}
        for training in trainings:
            metrics = found[training.stage]
            if "error" in metrics:
                result[training.name] = str(metrics["error"])
            else:
                result[training.name] = _measured(training, metrics, mapped)
        return result

    def _prepared(self) -> Mapping[str, Any]:
        return self.run.manifest("prepare").metrics

    def _mapped_mb(self) -> float:
        """Training shards that the rehearsal itself maps."""
        files = self.run.manifest("prepare").files
        sizes = [f["bytes"] for n, f in files.items() if n.startswith("train/")]
        return float(sum(sizes)) / 1e6

    def _rehearse(self, stages: list[str]) -> dict[str, dict[str, Any]]:
        file = self._place / "recipe.yaml"
        write_recipe(self._short, file)
        return rehearse(file, self.run.path, stages)


def _on_samples(recipe: Recipe, samples: Sequence[SampledSource]) -> Recipe:
    """The recipe with its text sources replaced by their samples."""
    sources = tuple(
        TextSource(name=s.name, paths=(str(s.file.absolute()),), weight=section.weight)
        for s, section in zip(samples, recipe.prepare.sources, strict=True)
    )
    prepare = recipe.prepare.model_copy(update={"sources": sources, "workers": 1})
    return recipe.model_copy(update={"prepare": prepare})


def _scaled(sample: SampledSource, counts: Mapping[str, Any], held_out: float) -> PlannedSource:
    if sample.text_bytes is None or sample.documents is None:
        return PlannedSource(sample.name, None, None, None)
    tokens = sample.text_bytes * counts["tokens"]["total"] / max(1, counts["bytes"]["total"])
    return PlannedSource(
        sample.name,
        round(sample.documents * (1 - held_out)),
        round(tokens * (1 - held_out)),
        round(tokens * held_out),
    )


def _shortened_trainings(recipe: Recipe, trainings: Sequence[PlannedTraining]) -> Recipe:
    """The recipe with every training cut down to a few steps."""
    short: dict[str, list[Any]] = {}
    for training in trainings:
        model = recipe.model
        if training.stage == "teacher":
            assert recipe.teacher and recipe.teacher.model
            model = recipe.teacher.model
        section = shortened(
            training.section,
            compiled=_is_compiled(training),
            context=model.max_position_embeddings,
            flops_per_token=training.flops_per_token + training.teacher_flops_per_token,
            device=pick_device().type,
        )
        short.setdefault(training.stage, []).append(section)
    changes: dict[str, Any] = {"pretrain": short["pretrain"][0]}
    if "teacher" in short:
        assert recipe.teacher
        changes["teacher"] = recipe.teacher.model_copy(update={"train": short["teacher"][0]})
    if "distill" in short:
        assert recipe.distill
        phases = {"phases": tuple(short["distill"])}
        changes["distill"] = recipe.distill.model_copy(update=phases)
    if "sft" in short:
        changes["sft"] = short["sft"][0]
    return recipe.model_copy(update=changes)


def _is_compiled(training: PlannedTraining) -> bool:
    """Whether the whole training would be compiled; the rehearsal alone would be too short."""
    flops = training.flops_per_token * (training.tokens or 0)
    return wants_compile(training.section.compile, pick_device(), flops)


def _measured(
    training: PlannedTraining, metrics: Mapping[str, Any], rehearsed_mb: float
) -> Measured:
    part = metrics["parts"][training.part]
    phases = metrics.get("phases")
    recorded = phases[training.part] if phases else metrics
    seconds = None
    if training.tokens is not None and part["tokens_per_second"]:
        validated = training.section.evaluations * training.validation_tokens
        tokens = training.tokens + validated / _FORWARD_SHARE
        seconds = tokens / part["tokens_per_second"]
    more = max(0.0, training.mapped_mb - rehearsed_mb)
    peak = recorded["peak_memory_mb"] + more
    return Measured(peak, recorded["peak_gpu_memory_mb"], seconds)
