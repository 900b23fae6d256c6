"""`tallyformer import-reference`."""

from __future__ import annotations

from pathlib import Path

import click

from tallyformer.cli.quiet import quieten_libraries


@click.command("import-reference")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False), metavar="OUT")
@click.option(
    "--base",
    metavar="FOLDER",
    help="FILE is the folder of a LoRA adapter for this imported model.",
)
def import_reference(file: Path, out: Path, base: str | None) -> None:
    """Convert a checkpoint of the reference system.

    FILE becomes the Hugging Face folder OUT, with the same logits; with --base, a PEFT adapter.
    Nothing in FILE is ever executed: one that needs more than tensors and plain values is refused.
    """
    quieten_libraries()
    from tallyformer.export import reference

    if base is None:
        made = reference.import_reference(file, out)
        click.echo(f"model: {made}")
        return
    made = reference.import_reference_adapter(file, _base_model(base), out)
    click.echo(f"adapter: {made}")


def _base_model(folder: str) -> object:
    import torch

    from tallyformer.inference.loading import load_model

    return load_model(folder, dtype=None, device=torch.device("cpu"))
