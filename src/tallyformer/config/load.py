"""YAML file and `--set a.b=c` to a checked `Recipe`, with the problems reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tallyformer.config.overrides import apply_overrides
from tallyformer.config.plain_yaml import (
    MOST_BYTES,
    RepeatedKeyError,
    read_plain_yaml,
    write_plain_yaml,
)
from tallyformer.config.problems import problems_of
from tallyformer.config.recipe import Recipe
from tallyformer.config.written_recipe import check_checksum
from tallyformer.config.yaml_errors import yaml_problem
from tallyformer.errors import ConfigError
from tallyformer.quoting import quoted


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply overrides.

    Args:
        path: the YAML file.
        overrides: see `apply_overrides`.

    Raises:
        ConfigError: the file is missing, too large, is not YAML, gives a key twice, or has unknown
            keys or bad values; the first 20 problems are listed, an unknown key with its nearest
            neighbour.
        UsageError: an override is malformed, or leads to no key.
    """
    tree = _read_yaml(path)
    apply_overrides(tree, overrides)
    return check_recipe(tree, str(path))


def check_recipe(tree: dict[str, Any], where: str) -> Recipe:
    """Turn plain values into a `Recipe`; `where` names their origin in errors."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems, count = problems_of(error)
    if count == 1:
        raise ConfigError(f"{where}: {problems[0]}")
    lines = "".join(f"\n  - {problem}" for problem in problems)
    raise ConfigError(f"{where}: {count:,} problems. Correct these keys:{lines}")


def recipe_as_yaml(recipe: Recipe) -> str:
    """The recipe with every default filled in, as a recipe file that loads to an equal recipe.

    Keys that do nothing in this recipe are left out.
    """
    return write_plain_yaml(recipe.model_dump(mode="json", exclude_none=True))


_KINDS = {type(None): "nothing", list: "a list", str: "one text"}


def _read_yaml(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        check_checksum(text)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        tree = read_plain_yaml(text)
    except RepeatedKeyError as error:
        raise ConfigError(f"{path}: {error}. Give it once") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML: {yaml_problem(error, text)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: a recipe is made of keys and sections, `key: value` with a space after the "
            f"colon; this file holds {_KINDS.get(type(tree), 'one value')}"
        )
    return tree


def _read_text(path: Path) -> str:
    if any(letter in str(path) for letter in "\n\r"):
        raise ConfigError(f"the path {quoted(str(path))} has a line break in its name. Rename it")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such recipe. Give --recipe a YAML file, for example "
            "recipes/quickstart.yaml"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path}: cannot be read ({reason}). Give a UTF-8 YAML file") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(
            f"{path}: larger than {MOST_BYTES:,} bytes, which no recipe needs. Give a recipe; data "
            "are named in it"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 at byte {error.start}. Save it as UTF-8 text"
        ) from None
