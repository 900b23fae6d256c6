"""`tallyformer export`."""

from __future__ import annotations

from typing import Any

import click

from tallyformer.cli.options import stage_options
from tallyformer.cli.stage_command import run_one_stage


@click.command()
@stage_options
def export(**options: Any) -> None:
    """Write the final Hugging Face folder of a run.

    The folder loads with AutoModelForCausalLM and AutoTokenizer on machines without this package.
    """
    run_one_stage("export", **options)
