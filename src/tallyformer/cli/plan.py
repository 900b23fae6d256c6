"""`tallyformer plan`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tallyformer.cli.options import load, out_option, recipe_options
from tallyformer.cli.output import print_advice
from tallyformer.cli.quiet import quieten_libraries

if TYPE_CHECKING:
    from tallyformer.planning.planned import Needs, Plan, PlannedTraining

_UNKNOWN = "?"


@click.command()
@recipe_options
@out_option
@click.option("--no-probe", is_flag=True, help="Leave the rehearsal out.")
@click.option(
    "--probe-seconds",
    type=click.FloatRange(1, 86400),
    default=20,
    show_default=True,
    help="End the rehearsal after this many seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.pass_context
def plan(
    context: click.Context,
    *,
    recipe: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    no_probe: bool,
    probe_seconds: float,
    as_json: bool,
) -> None:
    """Say what a run needs before it starts: size, memory, time.

    Parameters, tokens, FLOPs and epochs come from the run's manifests where its tokenizer and
    prepare stages are finished; before that they are estimates from a sample of the sources. A data
    set that cannot be reached is taken for as large as its limits in the recipe allow. Memory and
    time come first from formulas, then from a rehearsal of a few steps in a temporary folder, as
    far as it gets in its time; the run's folder is not touched.
    """
    if no_probe and context.get_parameter_source("probe_seconds") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--probe-seconds is for a rehearsal, and --no-probe leaves it out.")
    checked, folder = load(recipe, overrides, out)
    quieten_libraries()
    _say("loading torch")
    from tallyformer.planning.plan import planning
    from tallyformer.preflight.run_size import advice_before
    from tallyformer.stages.run import stages_of

    print_advice(advice_before(checked, folder, stages_of(checked)))
    with planning(checked, folder, say=_say) as open_plan:
        made = open_plan.by_formula()
        if not as_json:
            _print_sources(made)
            _print_trainings(made)
        if not no_probe:
            made = open_plan.rehearsed(made, probe_seconds)
    if as_json:
        click.echo(json.dumps(_as_json(made), indent=2))
        return
    if made.measured:
        click.secho("\nTrainings, after the rehearsal", bold=True)
        _print_needs(made)
    _print_totals(made)


def _say(what: str) -> None:
    click.secho(f"{what} ...", err=True, dim=True)


def _as_json(made: Plan) -> dict[str, Any]:
    values = dataclasses.asdict(made)
    for training, shown in zip(made.trainings, values["trainings"], strict=True):
        shown |= {"name": training.name, "flops": training.flops}
        shown["section"] = training.section.model_dump(mode="json")
    totals = ("peak_memory_mb", "gpu_memory_mb", "seconds")
    return {**values, **{name: getattr(made, name) for name in totals}}


def _print_sources(made: Plan) -> None:
    note = "" if made.exact else ", estimated from a sample; exact after `prepare`"
    click.secho(f"Training texts in a vocabulary of {made.vocabulary:,} ids{note}", bold=True)
    rows = [["source", "documents", "tokens", "validation tokens"]]
    for source in made.sources:
        counts = (source.documents, source.tokens, source.validation_tokens)
        rows.append([source.name, *(_UNKNOWN if c is None else f"{c:,}" for c in counts)])
    _print_table(rows)


def _print_trainings(made: Plan) -> None:
    click.secho("\nTrainings, memory and time by formula", bold=True)
    _print_needs(made)
    click.secho("\nEpochs of each source", bold=True)
    for training in made.trainings:
        epochs = training.epochs_by_source.items()
        shown = ", ".join(f"{name} {value:.2f}" for name, value in epochs) or _UNKNOWN
        click.echo(f"{training.name:<10}  {shown}")


def _print_needs(made: Plan) -> None:
    rows = [["stage", "parameters", "steps", "tokens", "FLOPs", "memory", "GPU memory", "time"]]
    for training in made.trainings:
        by = "" if training.name in made.measured else "~"
        rows.append([*_lengths(training), *_needs(made.needs(training), by)])
    _print_table(rows)


def _lengths(training: PlannedTraining) -> list[str]:
    return [
        training.name,
        f"{training.parameters:,}",
        _UNKNOWN if training.steps is None else f"{training.steps:,}",
        _UNKNOWN if training.tokens is None else f"{training.tokens:,}",
        _UNKNOWN if training.flops is None else f"{training.flops:.2e}",
    ]


def _needs(found: Needs, by: str) -> list[str]:
    gpu = "-" if found.gpu_memory_mb is None else by + _megabytes(found.gpu_memory_mb)
    time = _UNKNOWN if found.seconds is None else by + _duration(found.seconds)
    return [by + _megabytes(found.peak_memory_mb), gpu, time]


def _print_totals(made: Plan) -> None:
    on_gpu = made.gpu_memory_mb
    gpu = "" if on_gpu is None else f" Peak GPU memory: {_megabytes(on_gpu)}."
    click.secho(
        f"\nTime of all trainings: {_duration(made.seconds)}, with early stopping at most. "
        f"Peak memory: {_megabytes(made.peak_memory_mb)}.{gpu}",
        bold=True,
    )
    for note in made.notes:
        click.echo(f"{note[0].upper()}{note[1:]}.")
    if len(made.measured) < len(made.trainings):
        click.echo(
            "With ~: by formula, memory within about a quarter, time within a factor of three."
        )
    click.echo("The other stages (prepare, merge, evaluate, export) are not in these figures.")


def _megabytes(size: float) -> str:
    return f"{size:,.0f} MB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds < 360_000:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.0f} days"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """The first column flush left, the others flush right."""
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(_cells(row, wide)))


def _cells(row: Sequence[str], wide: Sequence[int]) -> Iterable[str]:
    for place, (cell, width) in enumerate(zip(row, wide, strict=True)):
        yield cell.ljust(width) if place == 0 else cell.rjust(width)
