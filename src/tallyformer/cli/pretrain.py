"""`tallyformer pretrain`."""

from __future__ import annotations

from typing import Any

import click

from tallyformer.cli.options import stage_options
from tallyformer.cli.stage_command import run_one_stage


@click.command()
@stage_options
def pretrain(**options: Any) -> None:
    """Train the model from scratch.

    Writes the best weights to DIR/pretrain/best, with metrics and checkpoints beside them. Needs
    the prepare stage. Ctrl-C, SIGTERM and SIGHUP save and exit; --resume resumes.
    """
    run_one_stage("pretrain", **options)
