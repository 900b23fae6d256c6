"""`tallyformer export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tallyformer.cli.options import recipe_options, work_options
from tallyformer.cli.quiet import quieten_libraries
from tallyformer.cli.stage_command import run_one_stage
from tallyformer.export.formats import FORMATS, all_dtypes


@click.command()
@click.argument(
    "folder",
    required=False,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="[FOLDER",
)
@click.argument(
    "out_folder", required=False, type=click.Path(path_type=Path, file_okay=False), metavar="OUT]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    help="Write the model in FOLDER for another engine, into the new folder OUT.",
)
@click.option(
    "--dtype",
    type=click.Choice(all_dtypes()),
    help="Of the matrices, with --format. Default: "
    + "; ".join(f"{name}: {form.dtypes[0] or 'as FOLDER'}" for name, form in FORMATS.items())
    + ".",
)
@click.option(
    "--refresh",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Give a model's folder that was written earlier today's code and settings, in place.",
)
@lambda command: recipe_options(work_options(command), required=False)
def export(
    folder: Path | None,
    out_folder: Path | None,
    form: str | None,
    dtype: str | None,
    refresh: Path | None,
    **options: Any,
) -> None:
    """Write the final Hugging Face folder of a run, or a model for another engine.

    With --recipe: the final folder of a run, which loads with AutoModelForCausalLM and
    AutoTokenizer on machines without this package.

    With --format: the model in FOLDER, any that a run wrote or a stock Llama, becomes OUT, which
    that engine loads. OUT appears after the engine has given the model's logits.

    With --refresh: model/, merged/ or best/ of a run, or a copy of one, keeps its weights and gets
    the code, configuration and generation_config.json of today's export.
    """
    if form is not None:
        _refuse_others("--format", options, {"refresh": refresh})
        _write_format(folder, out_folder, form, dtype)
        return
    for name, given in (("--dtype", dtype), ("FOLDER", folder)):
        if given is not None:
            raise click.UsageError(f"{name} is for --format {'|'.join(FORMATS)}; give that too")
    if refresh is not None:
        _refuse_others("--refresh", options)
        _refresh(refresh)
        return
    if options["recipe"] is None:
        raise click.UsageError(
            "give --recipe FILE, --format with FOLDER and OUT, or --refresh FOLDER"
        )
    run_one_stage("export", **options)


def _refuse_others(chosen: str, *options: dict[str, Any]) -> None:
    """Nothing is accepted and ignored."""
    for name, value in ((n, v) for some in options for n, v in some.items()):
        if value:
            shown = "set" if name == "overrides" else name.replace("_", "-")
            raise click.UsageError(f"{chosen} does not go with --{shown}. Leave one of them out")


def _write_format(folder: Path | None, out: Path | None, form: str, dtype: str | None) -> None:
    if folder is None or out is None:
        raise click.UsageError(f"--format {form}: give the model's FOLDER and the new folder OUT")
    quieten_libraries()
    from tallyformer.export.other_engines import export_model

    found = export_model(folder, out, form=form, dtype=dtype)
    engine = found.get("engine", "transformers")
    click.echo(
        f"{out}: {form}, {found['dtype']}. Loaded by {engine}: logits differ by "
        f"{found['rounding_difference']:.2g} from the model's (the largest is "
        f"{found['largest_logit']:.3g})"
    )


def _refresh(folder: Path) -> None:
    quieten_libraries()
    from tallyformer.export.refresh import refresh_folder

    changed = refresh_folder(folder)
    click.echo(f"{folder}: {', '.join(changed) if changed else 'nothing'} rewritten")
