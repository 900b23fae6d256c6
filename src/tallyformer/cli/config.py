"""`tallyformer config show | validate`."""

from __future__ import annotations

from pathlib import Path

import click

from tallyformer.cli.options import load, recipe_options


@click.group()
def config() -> None:
    """Show or validate a recipe."""


@config.command()
@recipe_options
def show(recipe: Path, overrides: tuple[str, ...]) -> None:
    """Print a recipe as YAML with every default filled in."""
    from tallyformer.config import recipe_as_yaml

    checked, _ = load(recipe, overrides, None)
    click.echo(recipe_as_yaml(checked), nl=False)


@config.command()
@recipe_options
def validate(recipe: Path, overrides: tuple[str, ...]) -> None:
    """Check a recipe and report every problem at once; exit 2 if there is one."""
    checked, _ = load(recipe, overrides, None)
    click.echo(f"{recipe}: a valid recipe, {checked.name!r}")
