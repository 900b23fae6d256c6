"""Options that several commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallyformer.cli.text import is_text
from tallyformer.errors import UsageError

if TYPE_CHECKING:
    from tallyformer.artifacts.run_folder import RunFolder
    from tallyformer.config import Recipe
    from tallyformer.errors import InvalidRequestError
    from tallyformer.inference.llm import LLM
    from tallyformer.inference.runner_names import RunnerName
    from tallyformer.inference.sampling_params import SamplingParams

Command = Callable[..., Any]


def recipe_options(command: Command, *, required: bool = True) -> Command:
    """`--recipe FILE` and `--set a.b=c`."""
    command = click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Change one value of the recipe, for example --set pretrain.steps=100. Repeatable.",
    )(command)
    return click.option(
        "--recipe",
        required=required,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The recipe, a YAML file.",
    )(command)


def out_option(command: Command) -> Command:
    """`--out DIR`."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="The run's folder. Default: runs/NAME, where NAME is the recipe's name.",
    )(command)


def dry_run_option(command: Command) -> Command:
    """`--dry-run`."""
    return click.option(
        "--dry-run",
        is_flag=True,
        help="Check the recipe and its inputs, say what would be done, and touch nothing.",
    )(command)


def expect_option(command: Command) -> Command:
    """`--expect CODE`."""
    return click.option(
        "--expect",
        metavar="CODE",
        help="Refuse inputs that are not those of the dry run that printed this code.",
    )(command)


def stage_options(command: Command) -> Command:
    """The options of every stage: recipe, overrides, folder, resume, dry run."""
    return recipe_options(work_options(command))


def work_options(command: Command) -> Command:
    """The options of every stage but the recipe's."""
    resume = click.option(
        "--resume", is_flag=True, help="Resume unfinished work in the run's folder."
    )
    return out_option(resume(dry_run_option(expect_option(command))))


def model_options(command: Command) -> Command:
    """`--model FOLDER`, how it is loaded and what computes it."""
    from tallyformer.inference.runner_names import RUNNERS, known_dtypes

    for option in (
        click.option("--verbose", is_flag=True, help="Say which runner computes, and why."),
        click.option("--device", metavar="NAME", help="Default: the GPU if there is one."),
        click.option(
            "--runner",
            type=click.Choice(RUNNERS),
            help="What computes the model. Default: native on a CPU where it can, else torch.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(known_dtypes()),
            help="Of the weights; int8 and int4 with native alone. Default: as they were saved.",
        ),
        click.option(
            "--model",
            required=True,
            metavar="FOLDER",
            help="A model's Hugging Face folder, for example runs/quickstart/model.",
        ),
    ):
        command = option(command)
    return command


LOADING = ("model", "dtype", "runner", "device", "verbose")
"""The parameters of `model_options`."""


def load_llm(
    *, model: str, dtype: str | None, runner: RunnerName | None, device: str | None, verbose: bool
) -> LLM:
    """The model that `model_options` describe."""
    import logging

    from tallyformer.cli.quiet import quieten_libraries

    quieten_libraries()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    if verbose:
        logging.getLogger("tallyformer").setLevel(logging.INFO)
    from tallyformer.inference.llm import LLM

    return LLM.from_pretrained(model, dtype=dtype, device=device, runner=runner)


_SAMPLING_HELP = {
    "max_tokens": (int, "Generate at most this many tokens; 256 unless the model says."),
    "min_tokens": (int, "Do not draw the end-of-text before this many tokens."),
    "temperature": (float, "0 always takes the most probable token."),
    "top_k": (int, "Sample from this many of the most probable tokens; 0: from all."),
    "top_p": (float, "Sample from the most probable tokens that hold this share of the mass."),
    "min_p": (float, "Drop tokens less probable than this share of the most probable one."),
    "mode": (str, "Where --top-p measures: within --top-k (combined), or on all (independent)."),
    "repetition_penalty": (float, "Above 1: lower logits of the prompt's and answer's tokens."),
    "frequency_penalty": (float, "Lower a token's logit for each time it was generated."),
    "presence_penalty": (float, "Lower a token's logit once it has been generated."),
    "stop": (str, "End before this text. Repeatable."),
    "seed": (int, "Make the answer reproducible."),
    "ignore_eos": (bool, "Continue after the model's end-of-text."),
    "look_up": (
        int,
        "Guess this many tokens a step from the text; faster where it repeats itself.",
    ),
}


def sampling_options(command: Command) -> Command:
    """One option a field of `SamplingParams`; what is not given, the model's folder decides."""
    from tallyformer.inference.sampling_params import MODES

    command = click.option(
        "--json-schema",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Answer in JSON that fits the JSON schema in this file.",
    )(command)
    for field, (kind, text) in reversed(_SAMPLING_HELP.items()):
        settings: dict[str, Any] = {"help": text, "default": None}
        if kind is bool:
            settings |= {"is_flag": True}
        elif field == "mode":
            settings |= {"type": click.Choice(MODES)}
        elif field == "stop":
            settings |= {"multiple": True, "metavar": "TEXT"}
        else:
            settings |= {"type": kind}
        command = click.option(f"--{field.replace('_', '-')}", field, **settings)(command)
    return command


def read_sampling(flags: dict[str, Any]) -> Callable[[LLM], SamplingParams]:
    """What makes the settings of a model from its own and from the options that were given.

    Raises:
        UsageError: one is out of range, or the schema's file cannot be read; the flag is named.
    """
    from tallyformer.errors import InvalidRequestError
    from tallyformer.inference.sampling_params import SamplingParams

    schema = _read_schema(flags.pop("json_schema"))
    given = {field: value for field, value in flags.items() if value is not None and value != ()}
    # A smaller limit than the model's own must not be refused for want of the model.
    most = {"max_tokens": max(given["min_tokens"], 1)} if "min_tokens" in given else {}
    try:
        SamplingParams(**{**most, **given})
    except InvalidRequestError as error:
        raise _of_flag(error) from None

    def params(llm: LLM) -> SamplingParams:
        mask = {} if schema is None else {"token_mask": _mask(llm, schema)}
        try:
            return dataclasses.replace(llm.default_params, **given, **mask)
        except InvalidRequestError as error:
            raise _of_flag(error) from None

    return params


def _of_flag(error: InvalidRequestError) -> UsageError:
    field, _, rest = str(error).partition(":")
    return UsageError(f"--{field.replace('_', '-')}:{rest}")


def _read_schema(path: Path | None) -> Any:
    if path is None:
        return None
    from tallyformer.artifacts.json_files import read_json

    fix = 'It must be a JSON schema, as {"type": "object"}. Correct it'
    return read_json(path, fix=fix, what="not a schema")


def _mask(llm: LLM, schema: Any) -> Any:
    from tallyformer.errors import InvalidRequestError
    from tallyformer.inference.grammar import Grammars

    try:
        return Grammars(llm.tokenizer).json_schema(schema)
    except InvalidRequestError as error:
        raise _of_flag(error) from None


def load(
    recipe: Path, overrides: tuple[str, ...], out: Path | None, expect: str | None = None
) -> tuple[Recipe, RunFolder]:
    """The checked recipe and the folder of its run, as an absolute path."""
    from tallyformer.artifacts.program import program
    from tallyformer.artifacts.run_folder import RunFolder
    from tallyformer.config import load_recipe

    checked = load_recipe(recipe, overrides)
    place = out if out is not None else Path("runs") / checked.name
    folder = place.absolute()
    if not is_text(str(folder)):
        raise UsageError(f"{str(folder)!a} is not UTF-8 text. Give another --out")
    typed = ["--recipe", str(recipe)]
    for override in overrides:
        typed += ["--set", override]
    if out is not None:
        typed += ["--out", str(out)]
    begun_by = click.get_current_context().info_name
    return checked, RunFolder(folder, tuple(typed), begun_by, program(), expect)
