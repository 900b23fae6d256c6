"""`tallyformer key`."""

from __future__ import annotations

from pathlib import Path

import click

from tallyformer.server.keys import add_key, key_line, new_key


@click.command()
@click.argument("name")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append the hash to this file of keys, which is made if it is not there.",
)
def key(name: str, file: Path | None) -> None:
    """Make an API key for `tallyformer serve --api-key-file`.

    Prints the key, which is stored nowhere; the server needs its hash alone. Without --file the
    line for the file of keys is printed to standard error.
    """
    if file is not None:
        click.echo(add_key(file, name))
        return
    secret = new_key()
    click.echo(key_line(name, secret), err=True)
    click.echo(secret)
