"""YAML file and `--set a.b=c` to a checked `Recipe`, with every problem reported at once."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tallyformer.config.plain_yaml import RepeatedKeyError, read_plain_yaml
from tallyformer.config.recipe import Recipe
from tallyformer.errors import ConfigError, UsageError


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply overrides.

    Args:
        path: the YAML file.
        overrides: `section.key=value` strings; values are YAML, list items are addressed by
            number (`distill.phases.0.alpha=0.5`).

    Raises:
        ConfigError: the file is missing, is not YAML, gives a key twice, or has unknown keys or
            bad values; all problems are listed, an unknown key with its nearest neighbour.
        UsageError: an override is malformed, or leads to no key.
    """
    tree = _read_yaml(path)
    for override in overrides:
        _apply(tree, override)
    return check_recipe(tree, str(path))


def check_recipe(tree: dict[str, Any], where: str) -> Recipe:
    """Turn plain values into a `Recipe`; `where` names their origin in errors."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors()]
    if len(problems) == 1:
        raise ConfigError(f"{where}: {problems[0]}")
    lines = "".join(f"\n  - {problem}" for problem in problems)
    raise ConfigError(f"{where}: {len(problems)} problems. Correct these keys:{lines}")


def recipe_as_yaml(recipe: Recipe) -> str:
    """The recipe with every default filled in, as a recipe file that loads to an equal recipe."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such recipe. Give --recipe a YAML file, for example "
            "recipes/quickstart.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Give a UTF-8 YAML file") from None
    try:
        tree = read_plain_yaml(text)
    except RepeatedKeyError as error:
        raise ConfigError(f"{path}: {error}. Give it once") from None
    except (yaml.YAMLError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML ({detail}). Correct that line") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of sections; this file is not")
    return tree


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, raw = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override!r}: write it as section.key=value")
    try:
        value = read_plain_yaml(raw)
    except RepeatedKeyError as error:
        raise UsageError(f"--set {override!r}: {error}. Give it once") from None
    except (yaml.YAMLError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise UsageError(
            f"--set {override!r}: the value is not valid YAML ({detail}). Quote it"
        ) from None
    if isinstance(value, str):
        value = _number(value)
    *parents, last = key.split(".")
    node: Any = tree
    for depth, name in enumerate(parents):
        node = _child(node, name, ".".join(parents[: depth + 1]), override)
    if isinstance(node, list):
        node[_index(node, last, key, override)] = value
    else:
        node[last] = value


def _child(node: Any, name: str, where: str, override: str) -> Any:
    key: Any = _index(node, name, where, override) if isinstance(node, list) else name
    child = node[key] if isinstance(node, list) else node.get(key)
    if child is None:
        child = node[key] = {}
    if not isinstance(child, dict | list):
        raise UsageError(f"--set {override!r}: {where} is a value, not a section")
    return child


def _index(node: list[Any], name: str, where: str, override: str) -> int:
    if not node:
        parent = where.rpartition(".")[0]
        raise UsageError(f"--set {override!r}: {parent} is an empty list. Give it whole: [...]")
    if not name.isdecimal() or int(name) >= len(node):
        raise UsageError(f"--set {override!r}: {where} must end in a number below {len(node)}")
    return int(name)


def _number(text: str) -> str | float:
    """YAML 1.1 reads 8e-4 as text; people mean the number."""
    try:
        return float(text)
    except ValueError:
        return text


def _describe(problem: Any) -> str:
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, name = problem["loc"]
        near = difflib.get_close_matches(str(name), _keys_at(parents), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{location}: unknown key{hint}"
    if problem["type"] == "missing":
        return f"{location}: required key is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{location}: {message}{shown}" if location else message + shown


def _keys_at(parents: Sequence[Any]) -> list[str]:
    model: type[BaseModel] | None = Recipe
    for part in parents:
        if model is None:
            return []
        if isinstance(part, int):
            continue
        field = model.model_fields.get(str(part))
        model = _section_of(field.annotation) if field else None
    return list(model.model_fields) if model else []


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation):
        for argument in typing.get_args(annotation):
            found = _section_of(argument)
            if found:
                return found
    return None
