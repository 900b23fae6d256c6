"""Options of commands that serve, made from the fields of `ServerSettings`."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import click

from tallyformer.inference.native.build import CACHE_VARIABLE
from tallyformer.server.settings import ServerSettings, flag_of

VARIABLES = "TALLYFORMER_"


class _List(click.ParamType[str]):
    """One item of a list; a variable of the environment holds several between commas."""

    name = "text"
    envvar_list_splitter = ","


def setting_option(name: str, default: Any = None) -> Callable[..., Any]:
    """The option of a field of `ServerSettings`, and its variable of the environment.

    Args:
        name: of the field.
        default: what a command says instead of the field's own, for its help.
    """
    field = ServerSettings.model_fields[name]
    default = field.default if default is None else default
    flag = flag_of(name)
    shared: dict[str, Any] = {
        "help": field.description,
        "envvar": variable_of(flag),
        "show_envvar": True,
        "default": None,
    }
    if field.annotation is bool:
        return click.option(flag, name, is_flag=True, **shared)
    if field.annotation in (tuple[str, ...], dict[str, Path]):
        form = "NAME=FOLDER" if name == "models" else "TEXT"
        return click.option(flag, name, type=_List(), multiple=True, metavar=form, **shared)
    if default is not None:
        shared["help"] += f" Default: {default}."
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


def given_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    # 0 is a value (and equal to False).
    return {n: v for n, v in values.items() if v is not None and v is not False and v != ()}


def without_effect(environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable that is named like a setting's without being one.

    Kubernetes gives its pods some of these itself, so they are accepted.
    """
    known = [variable_of(flag_of(name)) for name in ServerSettings.model_fields]
    for name in sorted(environment):
        if name.startswith(VARIABLES) and name not in (*known, CACHE_VARIABLE):
            near = difflib.get_close_matches(name, known, n=1)
            guess = f" Did you mean {near[0]}?" if near else ""
            yield f"{name} has no effect: there is no such setting.{guess}"


def variable_of(flag: str) -> str:
    """The variable of the environment for an option."""
    return VARIABLES + flag[2:].replace("-", "_").upper()


@contextlib.contextmanager
def needing_serve() -> Iterator[None]:
    """Say how to install what an import in the block does not find."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"serving needs {error.name}. Install it: pip install 'tallyformer[serve]'"
        ) from None
