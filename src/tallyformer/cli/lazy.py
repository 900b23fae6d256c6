"""A click group that imports a command's module only when that command is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from tallyformer.errors import RunError
from tallyformer.packages import what_to_install


@dataclass(frozen=True)
class CommandEntry:
    """Where a command lives and the line that `--help` shows for it.

    Attributes:
        module: the module's full name.
        attribute: the click command in it.
        summary: the first sentence of the command's docstring, without its full stop.
        extra: what is installed for it, if it is not what training needs.
    """

    module: str
    attribute: str
    summary: str
    extra: str | None = None


class LazyGroup(click.Group):
    """A group whose listing comes from a table, so that `--help` imports no command."""

    def __init__(self, *args: Any, entries: Mapping[str, CommandEntry], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the table's order: the order of the pipeline."""
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None for a name that does not exist.

        Raises:
            RunError: it needs a package that is not installed.
        """
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        try:
            command = getattr(importlib.import_module(entry.module), entry.attribute)
        except ModuleNotFoundError as error:
            message = what_to_install(error, entry.extra)
            if message is None:
                raise
            raise RunError(message) from None
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown name raises with its nearest neighbours."""
        name = args[0]
        if name in self._entries or name.startswith("-"):
            return super().resolve_command(ctx, args)
        raise click.exceptions.NoSuchCommand(name, possibilities=self._entries, ctx=ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, e.summary) for name, e in self._entries.items()])
