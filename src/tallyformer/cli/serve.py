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


_OTHER_SERVERS = {
    "--alias -a --served-model-name": "Name a model with --model NAME=FOLDER",
    "-m": "Write --model NAME=FOLDER",
    "--ctx-size -c --max-model-len": "The context is the model's own. Leave it out",
    "--parallel -np --max-num-seqs": "The engine decides how many run at once. Leave it out",
    "--threads -t": "All cores that are granted are used. Leave it out, or start it with taskset",
    "--n-gpu-layers -ngl --gpu-layers": "Write --device cuda",
    "--api-key": "Write keys to a file, hashed: tallyformer key NAME --file FILE; "
    "--api-key-file FILE",
    "--timeout -to": "Write --request-timeout SECONDS",
    "--metrics --slots --props": "It is always served. Leave it out",
    "--ssl-key-file --ssl-cert-file --ssl-keyfile": "Put a proxy with TLS in front",
}
"""Flags of llama.cpp's and vLLM's servers, and what says the same here."""
_INSTEAD = {flag: hint for flags, hint in _OTHER_SERVERS.items() for flag in flags.split()}


class _ServeCommand(click.Command):
    """Says what to write in place of another server's flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options.

        Raises:
            UsageError: one is not known.
        """
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption as error:
            written = (arg.partition("=")[0] for arg in args)
            flag = next((one for one in written if one in _INSTEAD), error.option_name)
            if flag in _INSTEAD:
                raise click.UsageError(
                    f"{flag}: not an option here. {_INSTEAD[flag]}", ctx
                ) from None
            raise


@click.command(cls=_ServeCommand)
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
