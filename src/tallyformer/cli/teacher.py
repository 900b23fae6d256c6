"""`tallyformer teacher`."""

from __future__ import annotations

from typing import Any

import click

from tallyformer.cli.options import stage_options
from tallyformer.cli.stage_command import run_one_stage


@click.command()
@stage_options
def teacher(**options: Any) -> None:
    """Train the recipe's own teacher for distillation.

    Only for recipes whose teacher section has a model; any other teacher is loaded when it is
    needed. Needs the prepare stage.
    """
    run_one_stage("teacher", **options)
