"""`tallyformer doctor`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from tallyformer.cli.quiet import quieten_libraries

_MARKS = {"ok": ("ok", "green"), "limited": ("note", "yellow"), "missing": ("MISSING", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Where runs would be written.",
)
def doctor(as_json: bool, out: Path) -> None:
    """Say what this machine can do and what is missing.

    Shows how to get what is missing. Changes nothing, and exits with 0 whatever it finds.
    """
    quieten_libraries()
    from tallyformer.doctor import examine

    findings = list(examine(out))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(f) for f in findings], indent=2))
        return
    wide = max(len(f.name) for f in findings)
    for found in findings:
        mark, colour = _MARKS[found.state]
        line = f"{found.name:<{wide}}  {click.style(f'{mark:<7}', fg=colour)}  {found.value}"
        click.echo(line)
        if found.fix:
            click.echo(f"{'':<{wide}}           -> {found.fix}")
