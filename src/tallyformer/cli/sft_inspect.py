"""`tallyformer sft inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallyformer.cli.options import load, out_option, recipe_options
from tallyformer.cli.quiet import quieten_libraries
from tallyformer.errors import UsageError

if TYPE_CHECKING:
    from tallyformer.artifacts.run_folder import RunFolder
    from tallyformer.config import Recipe
    from tallyformer.data.conversations import Conversation
    from tallyformer.tokenizer import Tokenizer


@click.command()
@recipe_options
@out_option
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many conversations to show.",
)
def inspect(recipe: Path, overrides: tuple[str, ...], out: Path | None, count: int) -> None:
    """Show training rows token by token with their mask.

    One token a line: `train` marks those that the model learns to predict, which are the response
    and its end-of-text; the others are read only. Uses the run's tokenizer.
    """
    quieten_libraries()
    from tallyformer.data.conversations import encode_pair
    from tallyformer.data.pairs import split_pairs

    checked, folder = load(recipe, overrides, out)
    if checked.sft is None:
        raise UsageError(f"{recipe}: the recipe has no sft section, so there is nothing to show")
    tokenizer = _tokenizer(checked, folder)
    pairs = split_pairs(
        checked.sft.sources,
        data_root=checked.data_root,
        validation_fraction=checked.sft.validation_fraction,
        seed=checked.seed,
    ).train
    for pair in pairs[:count]:
        context = checked.model.max_position_embeddings
        _show(encode_pair(tokenizer, pair, context), tokenizer)


def _tokenizer(recipe: Recipe, folder: RunFolder) -> Tokenizer:
    from tallyformer.tokenizer import Tokenizer

    if folder.is_finished("tokenizer"):
        folder.manifest("tokenizer", check=True)
        return Tokenizer.from_pretrained(folder.stage("tokenizer"))
    section = recipe.tokenizer
    if section.kind == "pretrained":
        place = recipe.locate(section.source, section.revision)
        return Tokenizer.from_pretrained(place, section.revision)
    raise UsageError(
        f"{folder.stage('tokenizer')}: this recipe trains its tokenizer, and that is not done. "
        "Run `tallyformer tokenizer` with the same options first"
    )


def _show(conversation: Conversation, tokenizer: Tokenizer) -> None:
    trained = sum(conversation.trained)
    title = f"{conversation.id}: {len(conversation.ids)} tokens, {trained} trained"
    for cut, side in (
        (conversation.prompt_cut, "prompt's beginning"),
        (conversation.response_cut, "response's end"),
    ):
        if cut:
            title += f", {cut} cut from the {side}"
    click.secho(title, bold=True)
    for token_id, is_trained in zip(conversation.ids, conversation.trained, strict=True):
        text = repr(tokenizer.decode([token_id], skip_control=False))
        line = f"  {'train' if is_trained else '  .  '}  {token_id:>6}  {text}"
        click.secho(line, fg="green" if is_trained else None, dim=not is_trained)
    click.echo()
