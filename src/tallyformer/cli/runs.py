"""`tallyformer runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tallyformer.cli.setting_options import given_options, needing_serve, setting_option
from tallyformer.cli.watching import PORT
from tallyformer.errors import UsageError
from tallyformer.server.settings import server_settings


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="The folder with the runs.",
)
@setting_option("host")
@setting_option("port", default=PORT)
@setting_option("api_key_file")
@setting_option("allow_anonymous")
@setting_option("allowed_hosts")
def runs(folder: Path, **values: Any) -> None:
    """Show the training runs of a folder in the browser, live while they train.

    Loads no model and writes nothing. Prints the address; SIGTERM or Ctrl-C ends it.
    """
    if not folder.is_dir():
        raise UsageError(f"--folder: {folder} is not a folder. Give the one with the runs")
    settings = server_settings({"port": PORT, **given_options(values), "runs": folder})
    with needing_serve():
        from tallyformer.server.listening import listening, url_of
        from tallyformer.server.run import serve_on
    with listening(settings.host, settings.port) as listener:
        click.echo(f"runs: {url_of(listener)}/runs")
        serve_on(listener, settings, log=False)
