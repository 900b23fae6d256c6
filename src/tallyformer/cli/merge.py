"""`tallyformer merge`."""

from __future__ import annotations

from typing import Any

import click

from tallyformer.cli.options import stage_options
from tallyformer.cli.stage_command import run_one_stage


@click.command()
@stage_options
def merge(**options: Any) -> None:
    """Merge the LoRA adapter into one set of weights.

    Refuses to write a model whose logits, when a fresh process loads it, differ from the adapter's
    by more than 1e-4. Needs the sft stage.
    """
    run_one_stage("merge", **options)
