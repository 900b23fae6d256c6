"""Writes what docs/ has from the code itself: `python -m tallyformer.cli.docs [--check]`.

docs/cli.md is made from the commands, the tables of docs/recipes.md from the sections of a recipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from tallyformer.cli.failures import exit_status_of
from tallyformer.cli.main import tallyformer
from tallyformer.cli.recipe_page import recipe_page
from tallyformer.errors import ArtifactError

HEAD = """# Command line

This page is generated from the commands: `python -m tallyformer.cli.docs`. Do not edit it.

Exit status: 0 done, 2 the command line or the recipe is wrong, 3 an input, an artifact, the disk
or the run failed, 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM, 141 the reader of the output went away.
Errors are one line on standard error that says what is wrong, where, and the fix. Results go to
standard output, progress to standard error. What a terminal's encoding lacks is printed as an
escape, for example `\\u20ac`.
"""
WIDTH = 88


@click.command()
@click.option("--check", is_flag=True, help="Fail if a page is not up to date; write nothing.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("docs"),
    show_default=True,
    help="Where the pages are.",
)
def docs(check: bool, folder: Path) -> None:
    """Generate the page of the command line and the tables of the recipe's page."""
    recipes = folder / "recipes.md"
    _update(folder / "cli.md", command_page(), check)
    _update(recipes, recipe_page(recipes.read_text(encoding="utf-8")), check)


def _update(page: Path, text: str, check: bool) -> None:
    if not check:
        page.write_text(text, encoding="utf-8")
    elif not page.is_file() or page.read_text(encoding="utf-8") != text:
        raise ArtifactError(f"{page}: out of date. Generate it: python -m tallyformer.cli.docs")


def command_page() -> str:
    """The page: the help of every command, in the order of the pipeline."""
    root = tallyformer.make_context("tallyformer", [], resilient_parsing=True)
    root.terminal_width = WIDTH
    return "\n".join([HEAD, *_sections(tallyformer, root)])


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        below = click.Context(child, info_name=name, parent=context, terminal_width=WIDTH)
        yield from _sections(child, below)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(lambda: docs.main(standalone_mode=False)))
