"""`tallyformer sft`: the stage, and the group that holds `inspect`."""

from __future__ import annotations

from typing import Any

import click

from tallyformer.cli.lazy import CommandEntry, LazyGroup
from tallyformer.cli.options import recipe_options, work_options
from tallyformer.cli.stage_command import run_one_stage

COMMANDS = {
    "inspect": CommandEntry(
        "tallyformer.cli.sft_inspect",
        "inspect",
        "Show training rows token by token with their mask",
    )
}


def _optional_recipe(command: Any) -> Any:
    """`inspect` has its own --recipe, so the group cannot require one."""
    return recipe_options(command, required=False)


@click.group(cls=LazyGroup, entries=COMMANDS, invoke_without_command=True)
@_optional_recipe
@work_options
@click.pass_context
def sft(context: click.Context, /, **options: Any) -> None:
    """Fine-tune with LoRA on prompts and responses.

    Only the response and its end-of-text are trained. Writes a PEFT adapter to DIR/sft/adapter.
    Starts from the distilled model, or from the pretrained one where the recipe distils nothing.
    """
    if context.invoked_subcommand is None:
        if options["recipe"] is None:
            raise click.MissingParameter(ctx=context, param=context.command.params[0])
        run_one_stage("sft", **options)
        return
    given = [name for name, value in options.items() if value]
    if given:
        raise click.UsageError(
            f"options of {context.invoked_subcommand!r} stand after its name", ctx=context
        )
