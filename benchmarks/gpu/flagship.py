"""Trains a recipe's model for a time, and leaves weights in parts. Called by flagship.sh.

    python benchmarks/gpu/flagship.py RECIPE --work FOLDER --minutes 7 [--rehearse]

FOLDER/run holds `tokenizer/` and `prepare/`, as unpack.py makes them. The speed is measured in a
short run of its own; then the stage `pretrain` trains so many steps as fit. Called again, with more
packs or more time, it resumes from its checkpoint. When the time is over before the steps are, the
stage is stopped, and ends with one step more.

FOLDER/run/model is the exported folder, FOLDER/parts the same in parts; each kind of parts is
restored to a folder and measured on all validation tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measuring import the_device, versions, write_result
from restore import restore
from safetensors.torch import load_file
from weights import REST, Limits, Listing, as_int8, pack_rest, write_set

from tallyformer.artifacts.manifest import MANIFEST, Manifest
from tallyformer.artifacts.run_folder import BEST, RunFolder
from tallyformer.config import Recipe, recipe_as_yaml
from tallyformer.config.load import load_recipe
from tallyformer.config.written_recipe import with_checksum
from tallyformer.data.packed import ValidationBatches
from tallyformer.errors import Interrupted
from tallyformer.evaluation.machine import describe_machine
from tallyformer.evaluation.perplexity import measure_loss
from tallyformer.interrupt import Stopped, stop_on_signals
from tallyformer.model.loading import load_model
from tallyformer.runs.data import load_shards, load_tokenizer
from tallyformer.stages import export, pretrain
from tallyformer.training.checkpoints import Checkpoints
from tallyformer.training.compiling import compiler_works
from tallyformer.training.loop import CHECKPOINTS
from tallyformer.training.metrics import METRICS, read_metrics
from tallyformer.training.precision import Precision

TRIAL_STEPS = 40
"""Of the run that measures the speed; its first lines of metrics, with compiling, are left out."""
KEPT_BACK = 0.1
"""Share of the time for what is not a training step: start, compiling, validation, checkpoints."""
ALL_TOKENS = 2**62


def main() -> None:
    options = _options()
    deadline = time.monotonic() + 60 * options.minutes
    device = the_device(options.rehearse)
    run = RunFolder(options.work / "run")
    done = newest_step(run)
    speed = speed_so_far(run) if done else trial(options, run)
    steps = steps_that_fit(options, speed, deadline - time.monotonic()) + done
    recipe = recipe_of(options, steps)
    trained = train_until(recipe, run, options, deadline)
    exported = export_again(recipe, run)
    kinds = write_parts(run, options)
    numbers = measure(run, kinds, options, device)
    values = {
        "machine": describe_machine(device),
        "versions": versions(),
        "steps": trained.metrics["steps"],
        "training": dict(trained.metrics),
        "export": dict(exported.metrics),
        "packs": sorted(p.name for p in (run.stage("prepare") / "train").glob("*/*.bin")),
        "perplexity": numbers,
    }
    for kind, folders in kinds.items():
        for folder in folders:
            listing = Listing.read(folder)
            listing.numbers = {**values, "this": numbers.get(kind)}
            listing.write(folder)
    lines = [f"{name}: validation perplexity {n['perplexity']:.4f}" for name, n in numbers.items()]
    tokens = trained.metrics["tokens"]
    lines.append(f"{trained.metrics['steps']} steps, {tokens:,} tokens, {speed:,.0f} tokens/s")
    what = f"{recipe.name}: trained for {options.minutes:g} minutes"
    write_result(options.work / "flagship.json", what, device, {**values, "summary": lines})
    print("\n".join(lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--file-mib", type=float, default=Limits.file)
    parser.add_argument("--shipment-mib", type=float, default=Limits.shipment)
    parser.add_argument("--rehearse", action="store_true")
    return parser.parse_args()


def recipe_of(options: argparse.Namespace, steps: int, **changed: Any) -> Recipe:
    """The recipe with another number of steps; compiled where the tools for it are.

    `compile: auto` would decide by the length of the run, and the trial is short.
    """
    values = {"steps": steps, **changed}
    if load_recipe(options.recipe).pretrain.compile == "auto":
        values["compile"] = "on" if compiler_works(the_device(options.rehearse)) else "off"
    return load_recipe(options.recipe, [f"pretrain.{key}={v}" for key, v in values.items()])


def trial(options: argparse.Namespace, run: RunFolder) -> float:
    """Tokens per second of a short run, which is thrown away."""
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        for stage in ("tokenizer", "prepare"):
            (Path(folder) / stage).symlink_to(run.stage(stage).resolve())
        short = RunFolder(Path(folder))
        changed = {"evaluations": 1, "evaluation_tokens": 1, "log_every": TRIAL_STEPS // 8}
        pretrain.run(recipe_of(options, TRIAL_STEPS, **changed), short)
        return speed_so_far(short)


def speed_so_far(run: RunFolder) -> float:
    """Median tokens per second of the newer half of a run's lines of metrics."""
    lines = read_metrics(run.stage("pretrain") / METRICS)
    speeds = [line["tokens_per_second"] for line in lines if line["kind"] == "train"]
    return float(statistics.median(speeds[len(speeds) // 2 :]))


def newest_step(run: RunFolder) -> int:
    """Steps that the run's checkpoint has done; 0 without one."""
    snapshot = Checkpoints(run.stage("pretrain") / CHECKPOINTS, "flagship.sh").load()
    return int(snapshot.state["step"]) if snapshot else 0


def steps_that_fit(options: argparse.Namespace, speed: float, seconds: float) -> int:
    """How many steps can be done in so many seconds, 2 or more."""
    section = recipe_of(options, 1)
    tokens = section.pretrain.micro_batch * section.pretrain.gradient_accumulation
    tokens *= section.model.max_position_embeddings
    return max(2, int(seconds * (1 - KEPT_BACK) * speed / tokens))


def train_until(
    recipe: Recipe, run: RunFolder, options: argparse.Namespace, deadline: float
) -> Manifest:
    """Run the stage; if time is over first, let it end with the step after its checkpoint's."""
    rang = threading.Event()
    try:
        with stop_on_signals(), alarm_at(deadline, rang):
            return train(recipe, run)
    except (Interrupted, Stopped) as stopped:
        if not rang.is_set():  # somebody else's signal
            raise
        print(stopped, flush=True)
    return train(recipe_of(options, newest_step(run) + 1), run)


def train(recipe: Recipe, run: RunFolder) -> Manifest:
    """Run the stage `pretrain`, or resume it, though its steps or its shards have changed."""
    written = with_checksum(recipe_as_yaml(recipe))
    (run.path / "recipe.yaml").write_text(written, encoding="utf-8")
    place = run.stage("pretrain")
    if place.exists():
        (place / MANIFEST).unlink(missing_ok=True)
        pretrain.work_of(recipe, run).claim()
    return pretrain.run(recipe, run)


@contextlib.contextmanager
def alarm_at(deadline: float, rang: threading.Event) -> Iterator[None]:
    """Send this process SIGTERM at a time, on which training saves everything and ends."""

    def ring() -> None:
        rang.set()
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(max(0.1, deadline - time.monotonic()), ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def export_again(recipe: Recipe, run: RunFolder) -> Manifest:
    """Run the stage `export` for the weights as they are now."""
    shutil.rmtree(run.stage("export"), ignore_errors=True)
    return export.run(recipe, run)


def write_parts(run: RunFolder, options: argparse.Namespace) -> dict[str, list[Path]]:
    """Write both kinds of parts; the folders of each."""
    parts = options.work / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    pack_rest(run.stage("export"), parts / REST)
    extra = [parts / REST, run.stage("pretrain") / METRICS]
    stored = load_file(run.stage("export") / "model.safetensors")
    exact = load_file(run.stage("pretrain") / BEST / "model.safetensors")
    assert exact.keys() == stored.keys()
    limits = Limits(options.file_mib, options.shipment_mib)
    return {
        "int8": write_set("int8", as_int8(exact), extra, parts, limits),
        "bf16": write_set("bf16", stored, extra, parts, limits),
    }


def measure(
    run: RunFolder, kinds: dict[str, list[Path]], options: argparse.Namespace, device: torch.device
) -> dict[str, dict[str, float]]:
    """Perplexity on all validation tokens of the trained weights and of each restored folder."""
    found = {"fp32": perplexity(run.stage("pretrain") / BEST, run, options, device)}
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        for kind, folders in kinds.items():
            restore(folders, Path(scratch) / kind)
            found[kind] = perplexity(Path(scratch) / kind, run, options, device)
    return found


def perplexity(
    model: Path, run: RunFolder, options: argparse.Namespace, device: torch.device
) -> dict[str, float]:
    """Of a folder, computed in float32."""
    recipe, tokenizer = recipe_of(options, 1), load_tokenizer(run)
    batches = ValidationBatches(
        load_shards(run, tokenizer).validation,
        context=recipe.model.max_position_embeddings,
        batch_size=recipe.pretrain.micro_batch,
        max_tokens=ALL_TOKENS,
        weights=None,
    )
    loss = measure_loss(
        load_model(model, dtype="float32", device=device),
        (batches.batch(number) for number in range(batches.batches_per_epoch)),
        tokenizer.token_bytes(),
        precision=Precision("fp32", device),
    )
    return {
        "perplexity": loss.perplexity,
        "bits_per_byte": loss.bits_per_byte,
        "tokens": loss.tokens,
    }


if __name__ == "__main__":
    main()
