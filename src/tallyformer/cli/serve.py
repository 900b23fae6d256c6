"""`tallyformer serve`: its options are the fields of `ServerSettings`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from tallyformer.server.settings import ServerSettings, flag_of, server_settings

VARIABLES = "TALLYFORMER_"


class _List(click.ParamType[str]):
    """One item of a list; a variable of the environment holds several between commas."""

    name = "text"
    envvar_list_splitter = ","


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, field in reversed(ServerSettings.model_fields.items()):
        command = _option(name, field)(command)
    return command


def _option(name: str, field: FieldInfo) -> Callable[..., Any]:
    flag = flag_of(name)
    shared: dict[str, Any] = {
        "help": field.description,
        "envvar": VARIABLES + flag[2:].replace("-", "_").upper(),
        "show_envvar": True,
        "default": None,
    }
    if field.annotation is bool:
        return click.option(flag, name, is_flag=True, **shared)
    if field.annotation in (tuple[str, ...], dict[str, Path]):
        form = "NAME=FOLDER" if name == "models" else "TEXT"
        return click.option(flag, name, type=_List(), multiple=True, metavar=form, **shared)
    if field.default is not None:
        shared["help"] += f" Default: {field.default}."
    return click.option(flag, name, type=_kind(field.annotation), **shared)


def _kind(annotation: Any) -> Any:
    """click's type of a field."""
    if get_origin(annotation) is UnionType or get_origin(annotation) is Union:
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if annotation is Path:
        return click.Path(path_type=Path)
    return annotation if annotation in (int, float) else str


def _named(models: tuple[str, ...]) -> dict[str, str]:
    """Folders by name; a folder without one is named as itself."""
    folders: dict[str, str] = {}
    for given in models:
        name, separator, folder = given.partition("=")
        if not separator:
            name, folder = Path(given).absolute().name, given
        if name in folders:
            raise click.UsageError(f"--model: {name} is given twice. Name one otherwise")
        if not (Path(folder) / "config.json").is_file():
            raise click.UsageError(
                f"--model: {folder} is not a model's folder: it has no config.json. "
                "Give NAME=FOLDER"
            )
        folders[name] = folder
    return folders


@click.command()
@_with_options
def serve(models: tuple[str, ...], **values: Any) -> None:
    """Serve models over HTTP, as OpenAI's API does.

    Every option may be given as a variable of the environment instead; lists there have commas
    between their items. Events are lines of JSON on standard error. SIGTERM or Ctrl-C lets running
    answers finish; a second one ends them.
    """
    if not models:
        raise click.UsageError("--model: required. Give NAME=FOLDER, as sft=runs/quickstart/model")
    # 0 is a value (and equal to False).
    given = {n: v for n, v in values.items() if v is not None and v is not False and v != ()}
    settings = server_settings({**given, "models": _named(models)})
    try:
        from tallyformer.server.run import serve as serve_with
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"serving needs {error.name}. Install it: pip install 'tallyformer[serve]'"
        ) from None
    serve_with(settings)
