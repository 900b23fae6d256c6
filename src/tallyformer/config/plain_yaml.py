"""YAML to plain values in which every key was given once and nothing is shared.

YAML itself lets a repeated key replace the first one, and makes an anchor and its aliases one
object, so that changing one place would change the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml


class RepeatedKeyError(ValueError):
    """A mapping has a key twice. Says which keys, and on which lines."""


def read_plain_yaml(text: str) -> Any:
    """The value of one YAML document, made of nothing but its own parts.

    Raises:
        yaml.YAMLError: it is not YAML.
        RepeatedKeyError: a key is given twice; all such keys are named.
        ValueError: a value contains itself, or is a date that does not exist.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        twice = list(_twice(node, (), ()))
        if twice:
            raise RepeatedKeyError("; ".join(dict.fromkeys(twice)))
        return _unshared(loader.construct_document(node))
    finally:
        loader.dispose()


def _twice(node: yaml.Node, path: tuple[str, ...], above: tuple[int, ...]) -> Iterator[str]:
    """Each key that a mapping has a second time, with the lines of both."""
    if id(node) in above:
        raise ValueError(f"{'.'.join(path)} contains itself")
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _twice(item, (*path, str(number)), above)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[tuple[str, Any], int] = {}
    for key, value in node.value:
        here = (*path, str(key.value))
        line = key.start_mark.line + 1
        name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else (key.tag, id(key))
        if name in first:
            yield f"{'.'.join(here)} is given twice, on lines {first[name]} and {line}"
        first.setdefault(name, line)
        yield from _twice(value, here, above)


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unshared(item) for item in value]
    return value
