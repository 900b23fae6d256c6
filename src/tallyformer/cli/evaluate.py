"""`tallyformer evaluate`."""

from __future__ import annotations

from typing import Any

import click

from tallyformer.cli.options import stage_options
from tallyformer.cli.stage_command import run_one_stage


@click.command()
@stage_options
def evaluate(**options: Any) -> None:
    """Measure the models of a run and write the report.

    Perplexity and bits per byte by domain, perplexity of held-out responses, samples; the report
    is one self-contained HTML file in DIR/evaluate.
    """
    run_one_stage("evaluate", **options)
