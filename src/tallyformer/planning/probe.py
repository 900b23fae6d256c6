"""A rehearsal of a run: its own stages, a few steps each, in a fresh process of bounded time.

The process runs the stages one after the other, as `tallyformer run` does, so the memory that it
needs is what the run will need, and the speed of its last steps is the run's speed. What it has
found out is written after each stage, and is kept when its time is over.
"""

from __future__ import annotations

import contextlib
import importlib
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.json_files import read_json
from tallyformer.artifacts.run_folder import METRICS, RunFolder, clear
from tallyformer.child import child
from tallyformer.config import Recipe, load_recipe
from tallyformer.config.training import TrainSection
from tallyformer.errors import RunError, TallyFormerError
from tallyformer.progress import progress_bar

LEAST_STEPS, MOST_STEPS = 4, 40
"""The first steps allocate and may compile; the later half is timed."""
_LOOK_SECONDS = 0.2
_ACCUMULATED = 2
"""With more than one micro-batch the gradients are held during the next forward pass."""


def shortened_training(
    section: TrainSection,
    *,
    compiled: bool,
    context: int,
    seconds_of_tokens: Callable[[float], float],
    seconds: float,
) -> TrainSection:
    """The same training, cut down to a few steps; what decides a step's memory stays.

    Args:
        compiled: whether to compile.
        context: of the model.
        seconds_of_tokens: about how long this many tokens take.
        seconds: about how long all steps may take; there are at least `LEAST_STEPS`.
    """
    accumulated = min(section.gradient_accumulation, _ACCUMULATED)
    of_step = seconds_of_tokens(section.micro_batch * context * accumulated)
    steps = round(seconds / max(of_step, 1e-6))
    changes: dict[str, Any] = {
        "steps": min(max(steps, LEAST_STEPS), MOST_STEPS),
        "epochs": None,
        "gradient_accumulation": accumulated,
        "compile": "on" if compiled else "off",
        "evaluations": 1,
        "evaluation_tokens": section.micro_batch * context,
        "checkpoint_minutes": 1e6,
        "log_every": 1,
        "early_stopping_patience": None,
    }
    return section.model_copy(update=changes)


def rehearse(
    recipe: Path, folder: Path, stages: Sequence[str], seconds: float
) -> dict[str, dict[str, Any]]:
    """Run stages in a fresh process, which does not outlive an exception in this one.

    Args:
        recipe: a recipe file, shortened already.
        folder: the rehearsal's run folder.
        stages: in order.
        seconds: the process is ended after this many.

    Returns:
        By stage that was reached its manifest's metrics, and in `parts` the `tokens_per_second` of
        the timed steps of each call of the training loop; or {"error": message} for a stage that
        failed.

    Raises:
        RunError: the process died, for example for lack of memory.
    """
    result, errors = folder / "probe.json", folder / "probe.txt"
    arguments = [str(recipe), str(folder), str(result), *stages]
    with errors.open("wb") as said, child(_REHEARSE, arguments, stderr=said) as process:
        ended = _wait(process, seconds)
    if ended and process.returncode:
        text = errors.read_text(encoding="utf-8", errors="replace").strip()
        lines = text.splitlines() or [f"exit status {process.returncode}"]
        raise RunError(
            f"plan: the rehearsal of {', '.join(stages)} died ({lines[-1][:300]}). If memory ran "
            "out, lower micro_batch; `--no-probe` plans without a rehearsal"
        )
    if not result.is_file():
        return {}
    found: dict[str, dict[str, Any]] = read_json(result, fix="Plan again")
    return found


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process, showing the time; False if the time is over before it ends."""
    begin, shown = time.monotonic(), 0.0
    with progress_bar("rehearsal", seconds, "s") as bar:
        while (passed := time.monotonic() - begin) < seconds:
            bar.update(passed - shown)
            shown = passed
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
                return True
    return False


_REHEARSE = """
import sys
from tallyformer.planning.probe import main
main(sys.argv[1:])
"""


def main(arguments: Sequence[str]) -> None:
    """What the process of `rehearse` does."""
    recipe_file, folder, result, *stages = arguments
    recipe, run = load_recipe(Path(recipe_file)), RunFolder(Path(folder))
    found: dict[str, dict[str, Any]] = {}
    for stage in stages:
        try:
            found[stage] = _rehearse_stage(stage, recipe, run)
        except TallyFormerError as error:
            found[stage] = {"error": str(error)}
            recipe = _without(stage, recipe)
        write_json(Path(result), found)


def _rehearse_stage(stage: str, recipe: Recipe, run: RunFolder) -> dict[str, Any]:
    module = importlib.import_module(f"tallyformer.stages.{stage}")
    metrics = dict(module.run(recipe, run).metrics)
    folder = run.stage(stage)
    parts = sorted(folder.glob("phase-*")) or [folder]
    metrics["parts"] = [_of_part(part) for part in parts]
    for checkpoints in folder.rglob("checkpoints"):
        clear(checkpoints)
    return metrics


def _of_part(folder: Path) -> dict[str, Any]:
    """Speed of one call of the training loop."""
    from tallyformer.training.metrics import read_metrics

    lines = [line for line in read_metrics(folder / METRICS) if line["kind"] == "train"]
    speeds = [line["tokens_per_second"] for line in lines[len(lines) // 2 :]]
    return {"tokens_per_second": statistics.median(speeds) if speeds else None}


def _without(stage: str, recipe: Recipe) -> Recipe:
    """What of a recipe can still be rehearsed when a stage cannot."""
    if stage in ("teacher", "distill"):
        return recipe.model_copy(update={"distill": None, "teacher": None})
    return recipe
