"""`--set a.b=c`: changes to the values of a recipe, before they are checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from tallyformer.config.keys import section_at
from tallyformer.config.plain_yaml import MOST_LEVELS, RepeatedKeyError, read_plain_yaml
from tallyformer.config.yaml_errors import yaml_problem
from tallyformer.errors import UsageError


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Change values of a recipe in place, one after the other.

    `null` takes a key out. A key of which a recipe has one of several (`steps` or `epochs`) takes
    the place of the one that the file gives.

    Args:
        tree: what the file says.
        overrides: `section.key=value` strings; values are YAML, list items are addressed by
            number (`distill.phases.0.alpha=0.5`).

    Raises:
        UsageError: an override is malformed, or leads through a value.
    """
    asked_for: set[str] = set()
    for override in overrides:
        key, value = _parsed(override)
        *parents, last = key.split(".")
        node: Any = tree
        for depth, name in enumerate(parents):
            node = _child(node, name, ".".join(parents[: depth + 1]), override)
        if isinstance(node, list):
            node[_index(node, last, key, override)] = value
        elif value is None:
            node.pop(last, None)
        else:
            node[last] = value
            asked_for.add(key)
            _clear_alternatives(node, parents, last, asked_for)


def _parsed(override: str) -> tuple[str, Any]:
    key, equals, raw = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UsageError(f"--set {override!r}: write it as section.key=value")
    if key.count(".") >= MOST_LEVELS:
        raise UsageError(f"--set {override[:80]!r}...: no key of a recipe lies so deep")
    try:
        return key, read_plain_yaml(raw)
    except RepeatedKeyError as error:
        raise UsageError(f"--set {override!r}: {error}. Give it once") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(
            f"--set {override!r}: the value is not valid YAML: {yaml_problem(error, raw)}"
        ) from None


def _clear_alternatives(
    node: dict[str, Any], parents: Sequence[str], key: str, asked_for: set[str]
) -> None:
    """Take out what excludes a key, unless that was asked for as well: then it is an error."""
    section = section_at(parents)
    for group in section.one_of if section else ():
        for other in group if key in group else ():
            if other != key and ".".join([*parents, other]) not in asked_for:
                node.pop(other, None)


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
    if not name.isdecimal() or len(name) > 9 or int(name) >= len(node):
        raise UsageError(f"--set {override!r}: {where} must end in a number below {len(node)}")
    return int(name)
