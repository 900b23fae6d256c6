"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tallyformer.artifacts.run_folder import RunFolder
    from tallyformer.config import Recipe

Command = Callable[..., Any]


def recipe_options(command: Command, *, required: bool = True) -> Command:
    """`--recipe FILE` and `--set a.b=c`."""
    command = click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Change one value of the recipe, for example --set pretrain.steps=100. Repeatable.",
    )(command)
    return click.option(
        "--recipe",
        required=required,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The recipe, a YAML file.",
    )(command)


def out_option(command: Command) -> Command:
    """`--out DIR`."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="The run's folder. Default: runs/NAME, where NAME is the recipe's name.",
    )(command)


def dry_run_option(command: Command) -> Command:
    """`--dry-run`."""
    return click.option(
        "--dry-run",
        is_flag=True,
        help="Check the recipe and its inputs, say what would be done, and touch nothing.",
    )(command)


def stage_options(command: Command) -> Command:
    """The options of every stage: recipe, overrides, folder, resume, dry run."""
    return recipe_options(work_options(command))


def work_options(command: Command) -> Command:
    """The options of every stage but the recipe's."""
    resume = click.option(
        "--resume", is_flag=True, help="Go on with unfinished work in the run's folder."
    )
    return out_option(resume(dry_run_option(command)))


def model_option(command: Command) -> Command:
    """`--model FOLDER`."""
    return click.option(
        "--model",
        required=True,
        metavar="FOLDER",
        help="A model's Hugging Face folder, for example runs/quickstart/model.",
    )(command)


def load(recipe: Path, overrides: tuple[str, ...], out: Path | None) -> tuple[Recipe, RunFolder]:
    """The checked recipe and the folder of its run."""
    from tallyformer.artifacts.run_folder import RunFolder
    from tallyformer.config import load_recipe

    checked = load_recipe(recipe, overrides)
    return checked, RunFolder(out if out is not None else Path("runs") / checked.name)
