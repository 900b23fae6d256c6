"""`tallyformer prepare`."""

from __future__ import annotations

from typing import Any

import click

from tallyformer.cli.options import stage_options
from tallyformer.cli.stage_command import run_one_stage


@click.command()
@stage_options
def prepare(**options: Any) -> None:
    """Clean, deduplicate, split and tokenise the texts.

    Writes binary shards to DIR/prepare, with a manifest in which documents in = documents kept +
    documents dropped by reason. Makes the tokenizer first if it is not there. The shards' bytes
    do not depend on the number of processes.
    """
    run_one_stage("prepare", **options)
