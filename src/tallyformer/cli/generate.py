"""`tallyformer generate`."""

from __future__ import annotations

import sys
from typing import Any

import click

from tallyformer.cli.options import (
    LOADING,
    load_llm,
    model_options,
    read_sampling,
    sampling_options,
)


@click.command()
@model_options
@click.option("--prompt", metavar="TEXT", help="The text to continue. Default: standard input.")
@click.option("--chat", is_flag=True, help="Ask the prompt as a user's message.")
@sampling_options
def generate(prompt: str | None, chat: bool, **flags: Any) -> None:
    """Continue a text.

    Writes the continuation to standard output as it is made. Text in a prompt that spells a
    control token stays text. Sampling options that are not given are those of the model's
    generation_config.json.
    """
    loading = {name: flags.pop(name) for name in LOADING}
    sampling = read_sampling(flags)
    text = _read_prompt() if prompt is None else prompt
    llm = load_llm(**loading)
    params = sampling(llm)
    answer = llm.stream_chat(text, params) if chat else llm.stream(text, params)
    for piece in answer:
        click.echo(piece.text, nl=False)
        sys.stdout.flush()
    click.echo()


def _read_prompt() -> str:
    if sys.stdin.isatty():
        raise click.UsageError("give --prompt TEXT, or pipe a text into standard input")
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"standard input is not UTF-8 ({error})") from None
