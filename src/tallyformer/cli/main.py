"""`tallyformer`: the command line. Each command lives in its own file and loads when called."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from tallyformer import __version__
from tallyformer.artifacts.scratch import sweep
from tallyformer.cli.failures import exit_status_of
from tallyformer.cli.lazy import CommandEntry, LazyGroup
from tallyformer.cli.streams import open_standard_streams
from tallyformer.cli.text import is_text
from tallyformer.errors import UsageError

_HERE = "tallyformer.cli"
COMMANDS = {
    "run": CommandEntry(f"{_HERE}.run", "run", "Run all stages of a recipe, and resume"),
    "plan": CommandEntry(
        f"{_HERE}.plan", "plan", "Say what a run needs before it starts: size, memory, time"
    ),
    "tokenizer": CommandEntry(
        f"{_HERE}.tokenizer", "tokenizer", "Fetch or train the recipe's tokenizer"
    ),
    "prepare": CommandEntry(
        f"{_HERE}.prepare", "prepare", "Clean, deduplicate, split and tokenise the texts"
    ),
    "pretrain": CommandEntry(f"{_HERE}.pretrain", "pretrain", "Train the model from scratch"),
    "teacher": CommandEntry(
        f"{_HERE}.teacher", "teacher", "Train the recipe's own teacher for distillation"
    ),
    "distill": CommandEntry(
        f"{_HERE}.distill", "distill", "Distil a teacher into the pretrained model"
    ),
    "sft": CommandEntry(f"{_HERE}.sft", "sft", "Fine-tune with LoRA on prompts and responses"),
    "merge": CommandEntry(
        f"{_HERE}.merge", "merge", "Merge the LoRA adapter into one set of weights"
    ),
    "evaluate": CommandEntry(
        f"{_HERE}.evaluate", "evaluate", "Measure the models of a run and write the report"
    ),
    "export": CommandEntry(
        f"{_HERE}.export",
        "export",
        "Write the final Hugging Face folder of a run, or a model for another engine",
    ),
    "report": CommandEntry(
        f"{_HERE}.report", "report", "Write the report page of one run, or of two side by side"
    ),
    "generate": CommandEntry(f"{_HERE}.generate", "generate", "Continue a text"),
    "chat": CommandEntry(f"{_HERE}.chat", "chat", "Chat with a model in the terminal"),
    "serve": CommandEntry(
        f"{_HERE}.serve", "serve", "Serve models over HTTP, as OpenAI's API does", "serve"
    ),
    "runs": CommandEntry(
        f"{_HERE}.runs",
        "runs",
        "Show the training runs of a folder in the browser, live while they train",
        "serve",
    ),
    "feedback": CommandEntry(
        f"{_HERE}.feedback",
        "feedback",
        "Use the answers that users of a server have rated",
        "serve",
    ),
    "key": CommandEntry(
        f"{_HERE}.key", "key", "Make an API key for `tallyformer serve --api-key-file`", "serve"
    ),
    "bench": CommandEntry(
        f"{_HERE}.bench",
        "bench",
        "Measure how fast a model's folder or a server answers, and how many at once",
        extra="bench",
    ),
    "import-reference": CommandEntry(
        f"{_HERE}.import_reference",
        "import_reference",
        "Convert a checkpoint of the earlier system of this name",
    ),
    "config": CommandEntry(f"{_HERE}.config", "config", "Show or validate a recipe"),
    "doctor": CommandEntry(
        f"{_HERE}.doctor", "doctor", "Say what this machine can do and what is missing"
    ),
}


@click.group(
    cls=LazyGroup,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="tallyformer")
def tallyformer() -> None:
    """Raw text to a chat model: prepare, pretrain, distil, fine-tune, evaluate, use.

    Start with `tallyformer run --recipe recipes/quickstart.yaml`.
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `tallyformer` command; exits with the status `failures` describes."""
    args = sys.argv[1:] if arguments is None else arguments
    open_standard_streams()
    _complete_shell()
    sys.exit(exit_status_of(lambda: invoke(args)))


def invoke(args: list[str]) -> Any:
    """Run one command line; raises what the command raises."""
    _check_are_text(args)
    sweep()
    with tallyformer.make_context("tallyformer", list(args)) as context:
        return tallyformer.invoke(context)


def _check_are_text(args: list[str]) -> None:
    """Refuse bytes that are not text before any work: they could not be written into results.

    Raises:
        UsageError: an argument holds such bytes.
    """
    for argument in args:
        if not is_text(argument):
            raise UsageError(
                f"the argument {argument!a} is not UTF-8 text. Rename the file or folder "
                "(files that a recipe's pattern finds may have any name), or set a UTF-8 locale: "
                "export LC_ALL=C.UTF-8"
            )


def _complete_shell() -> None:
    """Answer the shell's request for completions, if this call is one."""
    instruction = os.environ.get("_TALLYFORMER_COMPLETE")
    if instruction:
        from click.shell_completion import shell_complete

        sys.exit(
            shell_complete(tallyformer, {}, "tallyformer", "_TALLYFORMER_COMPLETE", instruction)
        )


if __name__ == "__main__":
    main()
