"""`tallyformer serve`: its options are the fields of `ServerSettings`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tallyformer.cli.setting_options import (
    given_options,
    needing_serve,
    setting_option,
    without_effect,
)
from tallyformer.server.settings import ServerSettings, server_settings


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name in reversed(ServerSettings.model_fields):
        command = setting_option(name)(command)
    return command


def _named(models: tuple[str, ...]) -> dict[str, str]:
    """Folders by name; a folder without one is named as itself."""
    folders: dict[str, str] = {}
    for given in models:
        name, separator, folder = (part.strip() for part in given.partition("="))
        if not separator:
            name, folder = Path(given).absolute().name, given.strip()
        if name in folders:
            raise click.UsageError(f"--model: {name} is given twice. Name one otherwise")
        if not (Path(folder) / "config.json").is_file():
            raise click.UsageError(
                f"--model: {folder or given!r} is not a model's folder: it has no config.json. "
                "Give NAME=FOLDER"
            )
        folders[name] = folder
    return folders


@click.command()
@_with_options
def serve(models: tuple[str, ...], **values: Any) -> None:
    """Serve models over HTTP, as OpenAI's API does.

    Every option may be given as a variable of the environment instead; lists there have commas
    between their items. Events are lines of JSON on standard error. SIGTERM or Ctrl-C lets running
    answers finish; a second one ends them.
    """
    if not models:
        raise click.UsageError("--model: required. Give NAME=FOLDER, as sft=runs/quickstart/model")
    settings = server_settings({**given_options(values), "models": _named(models)})
    with needing_serve():
        from tallyformer.server.run import serve as serve_with
    serve_with(settings, notes=tuple(without_effect(os.environ)))
