"""`tallyformer key`."""

from __future__ import annotations

from pathlib import Path

import click

from tallyformer.server.keys import key_line, new_key


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
    secret = new_key()
    line = key_line(name, secret)
    if file is None:
        click.echo(line, err=True)
    else:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")
        file.chmod(0o600)
    click.echo(secret)
