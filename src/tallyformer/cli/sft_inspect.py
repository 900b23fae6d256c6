"""`tallyformer sft inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallyformer.cli.options import load, out_option, recipe_options
from tallyformer.cli.quiet import quieten_libraries
from tallyformer.errors import UsageError

if TYPE_CHECKING:
    from tallyformer.artifacts.run_folder import RunFolder
    from tallyformer.config import Recipe
    from tallyformer.data.conversations import Conversation
    from tallyformer.data.pairs import PairSplit
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

    One token a line: `train` marks those that the model learns to predict, which are the
    responses and their end-of-text; the others are read only. Before them stands what was read
    of each source, as pairs or as conversations. Uses the run's tokenizer.
    """
    quieten_libraries()
    from tallyformer.data.conversations import encode_pair
    from tallyformer.data.pairs import split_pairs

    checked, folder = load(recipe, overrides, out)
    if checked.sft is None:
        raise UsageError(f"{recipe}: the recipe has no sft section, so there is nothing to show")
    tokenizer = _tokenizer(checked, folder)
    split = split_pairs(
        checked.sft.sources,
        data_root=checked.data_root,
        validation_fraction=checked.sft.validation_fraction,
        seed=checked.seed,
    )
    for name, counts in split.counts.items():
        click.secho(_described(name, counts, split), err=True)
    for pair in split.train[:count]:
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
        f"Make it first: {folder.command('tokenizer')}"
    )


def _described(name: str, counts: Mapping[str, Any], split: PairSplit) -> str:
    """What a source gave."""
    pairs = [*dict.fromkeys(split.train), *split.validation]
    own = [pair for pair in pairs if pair.id.startswith(f"{name}/")]
    several = sum(bool(pair.later) for pair in own)
    answers = sum(len(pair.turns) // 2 for pair in own)
    dropped = ", ".join(f"{number} {reason}" for reason, number in counts["dropped"].items())
    return (
        f"{name}: {counts['rows']} rows, {counts['train']} to train on, {counts['validation']} "
        f"held out, dropped: {dropped or 'none'}; {several} are conversations of several turns, "
        f"{sum(bool(pair.system) for pair in own)} have a system message; {answers} answers"
    )


def _show(conversation: Conversation, tokenizer: Tokenizer) -> None:
    trained = sum(conversation.trained)
    title = f"{conversation.id}: {len(conversation.ids)} tokens, {trained} trained"
    for cut, side in (
        (conversation.prompt_cut, "cut from the prompt's beginning"),
        (conversation.response_cut, "cut from the response's end"),
        (conversation.turns_cut, "whole turns left out at the beginning"),
    ):
        if cut:
            title += f", {cut} {side}"
    click.secho(title, bold=True)
    for token_id, is_trained in zip(conversation.ids, conversation.trained, strict=True):
        text = repr(tokenizer.decode([token_id], skip_control=False))
        line = f"  {'train' if is_trained else '  .  '}  {token_id:>6}  {text}"
        click.secho(line, fg="green" if is_trained else None, dim=not is_trained)
    click.echo()
