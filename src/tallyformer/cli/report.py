"""`tallyformer report`."""

from __future__ import annotations

from pathlib import Path

import click

from tallyformer.cli.quiet import quieten_libraries


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), metavar="RUN")
@click.argument(
    "other",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="[RUN]",
    required=False,
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Default: report.html in the first run's folder, comparison.html for two runs.",
)
def report(run: Path, other: Path | None, out: Path | None) -> None:
    """Write the report page of one run, or of two side by side.

    One self-contained HTML file. A section whose stage has not finished says so.
    """
    quieten_libraries()
    from tallyformer.artifacts.run_folder import RunFolder
    from tallyformer.report.page import write_report

    runs = [RunFolder(path) for path in (run, other) if path is not None]
    target = out or run / ("report.html" if other is None else "comparison.html")
    write_report(runs, target)
    click.echo(f"report: {target}")
