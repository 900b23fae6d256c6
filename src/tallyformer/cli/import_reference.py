"""`tallyformer import-reference`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tallyformer.cli.quiet import quieten_libraries
from tallyformer.errors import UsageError


@click.command("import-reference")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False), metavar="OUT")
@click.option(
    "--tokenizer",
    metavar="FOLDER",
    help="Save this tokenizer, a folder or a hub name such as gpt2, with the model.",
)
@click.option(
    "--base",
    metavar="FOLDER",
    help="FILE is the folder of a LoRA adapter for this imported model.",
)
def import_reference(file: Path, out: Path, tokenizer: str | None, base: str | None) -> None:
    """Convert a checkpoint of the earlier system of this name.

    FILE becomes the Hugging Face folder OUT, with the same logits; with --base, a PEFT adapter.
    Nothing in FILE is ever executed: one that needs more than tensors and plain values is refused.
    """
    if base is not None and tokenizer is not None:
        raise UsageError("--tokenizer: an adapter has none; leave it out, or leave --base out")
    quieten_libraries()
    if base is not None:
        click.echo(f"adapter: {_convert_adapter(file, base, out)}")
    else:
        click.echo(f"model: {_convert_model(file, tokenizer, out)}")


def _convert_model(file: Path, tokenizer: str | None, out: Path) -> Path:
    from tallyformer.export.reference import import_reference as convert
    from tallyformer.tokenizer import Tokenizer

    loaded = Tokenizer.from_pretrained(tokenizer) if tokenizer else None
    return convert(file, out, loaded)


def _convert_adapter(folder: Path, base: str, out: Path) -> Path:

    from tallyformer.export.reference import import_reference_adapter
    from tallyformer.model.loading import load_model
    from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

    model: Any = load_model(base)
    if not isinstance(model, TallyFormerForCausalLM):
        raise UsageError(
            f"--base: {base} is not a TallyFormer model. Import the adapter's base model first"
        )
    return import_reference_adapter(folder, model, out)
