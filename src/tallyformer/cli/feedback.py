"""`tallyformer feedback`."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def feedback() -> None:
    """Use the answers that users of a server have rated."""


@feedback.command()
@click.option("--database", required=True, metavar="URL", help="As `serve --feedback` has it.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where pairs.jsonl and preferences.jsonl are written.",
)
def export(database: str, out: Path) -> None:
    """Write rated answers as pairs and as preferences.

    A source of a recipe's `sft` reads both as they are: pairs.jsonl has conversations that end with
    an answer that was corrected or rated up, preferences.jsonl a better and a worse answer to each,
    of which the better one is learnt.
    """
    from tallyformer.server.feedback.export import export_feedback
    from tallyformer.server.feedback.store import FeedbackStore

    written = export_feedback(FeedbackStore(database).all(), out)
    for name, lines in written.items():
        click.echo(f"{out / name}: {lines:,} lines")
