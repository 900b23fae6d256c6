"""What a run will need, found out before it starts and without touching its folder.

Sizes come from the run's manifests where its stages are finished, else from a sample of the
sources or from the recipe's limits. Memory and time come from formulas at once, and then from a
rehearsal of bounded time: see `tallyformer.planning.probe`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.artifacts.scratch import scratch_folder
from tallyformer.config import Recipe
from tallyformer.errors import Interrupted
from tallyformer.interrupt import Stopped
from tallyformer.model.device import choose_device
from tallyformer.planning.formulas import Formulas, slower_than_formula, worked_tokens
from tallyformer.planning.planned import Needs, Plan, PlannedTraining
from tallyformer.planning.probe import LEAST_STEPS, rehearse, shortened_training
from tallyformer.planning.steps import planned_trainings
from tallyformer.planning.texts import planned_inputs
from tallyformer.stages.run import write_recipe
from tallyformer.training.compiling import wants_compile

_OF_WORK = 0.4
"""Share of a rehearsal's time that is left for training steps; the rest is loading and saving."""
_COMPILING_SECONDS = 120.0
"""A shorter rehearsal does not compile, which takes about a minute for each training."""


@contextlib.contextmanager
def planning(
    recipe: Recipe, folder: RunFolder, *, say: Callable[[str], None]
) -> Iterator[Planning]:
    """Plan a run, inside the block.

    Args:
        folder: where it will be or has been started; only read.
        say: told what is being done, as it may take some time.

    Raises:
        DataError, TokenizerError: an input is missing or cannot be used.
        Interrupted: a signal came. Nothing is left over.
    """
    try:
        with scratch_folder() as place:
            yield Planning(recipe, folder, place, say)
    except Stopped as stopped:
        raise Interrupted(
            f"plan: {stopped}. Nothing was written; start it again", stopped.signal_number
        ) from None


class Planning:
    """First the formulas, then, if it is wanted, a rehearsal in a temporary folder."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, place: Path, say: Callable[[str], None]
    ) -> None:
        self._recipe, self._place, self._say = recipe, place, say
        self._run = RunFolder(place / "run")
        self._run.path.mkdir()
        self._inputs = planned_inputs(recipe, folder, place, self._run, say)
        self._formulas = Formulas()

    def by_formula(self) -> Plan:
        """Sizes, memory and time without trying anything.

        Raises:
            DataError: a source that takes part has no whole sequence, or there are no pairs.
        """
        found = self._inputs
        trainings = list(
            planned_trainings(
                self._recipe,
                found.sources,
                found.vocabulary,
                found.tokenizer if found.pairs_are_there else None,
            )
        )
        notes = [*found.notes]
        if self._recipe.teacher and self._recipe.teacher.source:
            notes.append("a ready teacher's memory and FLOPs are not in the formulas")
        needs = {training.name: self._formulas.needs(training) for training in trainings}
        return Plan(found.vocabulary, found.exact, found.sources, trainings, notes, needs, {})

    def rehearsed(self, plan: Plan, seconds: float) -> Plan:
        """The plan with what a rehearsal of at most this many seconds shows.

        Trainings that it does not reach keep the formula's memory, and the formula's time as much
        longer or shorter as the others' was.

        Raises:
            RunError: the rehearsal died, for example for lack of memory.
        """
        reason = self._why_not(plan, seconds)
        if reason:
            return replace(plan, notes=[*plan.notes, reason])
        stages = list(dict.fromkeys(t.stage for t in plan.trainings))
        self._say(f"rehearsing a few steps of {', '.join(stages)}, {seconds:.0f} s at most")
        found = self._rehearse(plan.trainings, stages, seconds)
        mapped = self._mapped_mb()
        measured: dict[str, Needs] = {}
        notes = list(plan.notes)
        for training in plan.trainings:
            metrics = found.get(training.stage)
            if metrics is None:
                continue
            if "error" in metrics:
                notes.append(f"{training.name} could not be rehearsed: {metrics['error']}")
            else:
                measured[training.name] = _measured(training, metrics, mapped)
        if len(found) < len(stages):
            left = ", ".join(stage for stage in stages if stage not in found)
            notes.append(
                f"the time was over before {left} was rehearsed. --probe-seconds gives more"
            )
        factor = slower_than_formula(plan.trainings, plan.by_formula, measured)
        scaled = {name: _slower(needs, factor) for name, needs in plan.by_formula.items()}
        return replace(plan, notes=notes, by_formula=scaled, measured=measured)

    def _why_not(self, plan: Plan, seconds: float) -> str | None:
        if self._inputs.short is None:
            return "nothing was rehearsed, as not all texts and the vocabulary are here"
        first = plan.trainings[0]
        tokens = LEAST_STEPS * first.section.micro_batch * first.context
        least = (self._formulas.seconds(first, tokens) or 0) / _OF_WORK
        if least > seconds:
            return (
                f"nothing was rehearsed, as that takes {least:.0f} s for {first.name} alone. "
                "--probe-seconds gives more"
            )
        return None

    def _rehearse(
        self, trainings: Sequence[PlannedTraining], stages: list[str], seconds: float
    ) -> dict[str, dict[str, Any]]:
        assert self._inputs.short
        for_each = _OF_WORK * seconds / len(trainings)
        short = [self._shortened(training, for_each, seconds) for training in trainings]
        file = self._place / "recipe.yaml"
        write_recipe(_with_trainings(self._inputs.short, trainings, short), file)
        return rehearse(file, self._run.path, stages, seconds)

    def _shortened(self, training: PlannedTraining, for_each: float, seconds: float) -> Any:
        flops = training.flops_per_token * (training.tokens or 0)
        compiled = seconds >= _COMPILING_SECONDS and wants_compile(
            training.section.compile, choose_device(), flops
        )
        return shortened_training(
            training.section,
            compiled=compiled,
            context=training.context,
            seconds_of_tokens=lambda tokens: self._formulas.seconds(training, tokens) or 0.0,
            seconds=for_each,
        )

    def _mapped_mb(self) -> float:
        """Training shards that the rehearsal itself maps."""
        files = self._run.manifest("prepare").files
        sizes = [f["bytes"] for n, f in files.items() if n.startswith("train/")]
        return float(sum(sizes)) / 1e6


def _with_trainings(
    recipe: Recipe, trainings: Sequence[PlannedTraining], short: Sequence[Any]
) -> Recipe:
    """The recipe with its trainings replaced."""
    by_stage: dict[str, list[Any]] = {}
    for training, section in zip(trainings, short, strict=True):
        by_stage.setdefault(training.stage, []).append(section)
    changes: dict[str, Any] = {"pretrain": by_stage["pretrain"][0]}
    if "teacher" in by_stage:
        assert recipe.teacher
        changes["teacher"] = recipe.teacher.model_copy(update={"train": by_stage["teacher"][0]})
    if "distill" in by_stage:
        assert recipe.distill
        phases = {"phases": tuple(by_stage["distill"])}
        changes["distill"] = recipe.distill.model_copy(update=phases)
    if "sft" in by_stage:
        changes["sft"] = by_stage["sft"][0]
    return recipe.model_copy(update=changes)


def _measured(training: PlannedTraining, metrics: Mapping[str, Any], rehearsed_mb: float) -> Needs:
    part = metrics["parts"][training.part]
    phases = metrics.get("phases")
    recorded = phases[training.part] if phases else metrics
    seconds = None
    tokens = worked_tokens(training)
    if tokens is not None and part["tokens_per_second"]:
        seconds = tokens / part["tokens_per_second"]
    more = max(0.0, training.mapped_mb - rehearsed_mb)
    peak = recorded["peak_memory_mb"] + more
    return Needs(peak, recorded["peak_gpu_memory_mb"], seconds)


def _slower(needs: Needs, factor: float) -> Needs:
    return replace(needs, seconds=None if needs.seconds is None else needs.seconds * factor)
