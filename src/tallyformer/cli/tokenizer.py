"""`tallyformer tokenizer`."""

from __future__ import annotations

from typing import Any

import click

from tallyformer.cli.options import stage_options
from tallyformer.cli.stage_command import run_one_stage


@click.command()
@stage_options
def tokenizer(**options: Any) -> None:
    """Fetch or train the recipe's tokenizer.

    Writes a transformers tokenizer folder with the control tokens and the chat template to
    DIR/tokenizer.
    """
    run_one_stage("tokenizer", **options)
