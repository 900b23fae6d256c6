"""`tallyformer distill`."""

from __future__ import annotations

from typing import Any

import click

from tallyformer.cli.options import stage_options
from tallyformer.cli.stage_command import run_one_stage


@click.command()
@stage_options
def distill(**options: Any) -> None:
    """Distil a teacher into the pretrained model.

    Runs the recipe's phases one after the other. Needs the pretrain stage and the teacher.
    """
    run_one_stage("distill", **options)
