"""`tallyformer export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tallyformer.cli.options import recipe_options, work_options
from tallyformer.cli.quiet import quieten_libraries
from tallyformer.cli.stage_command import run_one_stage


@click.command()
@click.option(
    "--refresh",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Give a model's folder that was written earlier today's code and settings, in place.",
)
@lambda command: recipe_options(work_options(command), required=False)
def export(refresh: Path | None, **options: Any) -> None:
    """Write the final Hugging Face folder of a run.

    The folder loads with AutoModelForCausalLM and AutoTokenizer on machines without this package.
    With --refresh no recipe is needed: model/, merged/ or best/ of a run, or a copy of one, keeps
    its weights and gets the code, configuration and generation_config.json of today's export.
    """
    if refresh is not None:
        _refresh(refresh, options)
        return
    if options["recipe"] is None:
        raise click.UsageError("give --recipe FILE, or --refresh FOLDER")
    run_one_stage("export", **options)


def _refresh(folder: Path, options: dict[str, Any]) -> None:
    given = [f"--{'set' if name == 'overrides' else name}" for name, v in options.items() if v]
    if given:
        raise click.UsageError(f"--refresh takes a folder alone, not {given[0].replace('_', '-')}")
    quieten_libraries()
    from tallyformer.export.refresh import refresh_folder

    changed = refresh_folder(folder)
    click.echo(f"{folder}: {', '.join(changed) if changed else 'nothing'} rewritten")
