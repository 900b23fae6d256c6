"""YAML to plain values and back: YAML 1.2's words and numbers, every key once, nothing shared.

YAML 1.1, which PyYAML knows, reads `on` as true, `010` as 8, `1:30` as 90 and `8e-4` as text. YAML
itself lets a repeated key replace the first one, makes an anchor and its aliases one object, and
lets aliases of aliases stand for more values than any memory holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

MOST_BYTES = 1 << 20
MOST_VALUES = 20_000
"""Keys, values and sections together, each alias counted as all that it stands for."""
MOST_LEVELS = 40

_TAG = "tag:yaml.org,2002:"
_WORDS = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9][0-9_]*|0o[0-7_]+|0x[0-9a-fA-F_]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}
"""The core schema of YAML 1.2 (section 10.3.2) by the first letters of a word, with `_` in numbers
and the merge key, which both are YAML 1.1's."""
_KNOWN = {*_WORDS, "str", "seq", "map"}
_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
for _name, (_pattern, _letters) in _WORDS.items():
    for _letter in _letters:
        _RESOLVERS.setdefault(_letter.replace("\0", ""), []).append(
            (_TAG + _name, re.compile(rf"(?:{_pattern})\Z"))
        )


class RepeatedKeyError(ValueError):
    """A mapping has a key twice. Says which keys, and on which lines."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._levels = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._values += 1
        self._levels += 1
        _check_size(self._values, self._levels)
        node = super().compose_node(parent, index)
        self._levels -= 1
        return node

    def integer(self, node: yaml.ScalarNode) -> int:
        word = self.construct_scalar(node).replace("_", "")
        return int(word, 0) if word[:2] in ("0o", "0x") else int(word)


class _Dumper(yaml.SafeDumper):
    """Quotes what is not text in either version, as others may read the file with 1.1."""

    yaml_implicit_resolvers = {
        letter: [
            *yaml.SafeDumper.yaml_implicit_resolvers.get(letter, []),
            *_RESOLVERS.get(letter, []),
        ]
        for letter in {*yaml.SafeDumper.yaml_implicit_resolvers, *_RESOLVERS}
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.add_constructor(f"{_TAG}int", _Loader.integer)


def read_plain_yaml(text: str) -> Any:
    """The value of one YAML document, made of nothing but its own parts.

    Raises:
        yaml.YAMLError: it is not YAML.
        RepeatedKeyError: a key is given twice; all such keys are named.
        ValueError: it holds more than `MOST_VALUES` values or `MOST_LEVELS` levels, a value
            contains itself, or it is of a kind that is not a plain one.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        twice = list(dict.fromkeys(_Walk().repeated(node, (), ())))
        if twice:
            raise RepeatedKeyError("; ".join(twice[:20]))
        return _unshared(loader.construct_document(node))
    finally:
        loader.dispose()


def write_plain_yaml(value: Any) -> str:
    """The text that `read_plain_yaml` reads as an equal value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Walk:
    """Looks at each value as often as it is reached, so that what it lets pass is small."""

    def __init__(self) -> None:
        self._values = 0

    def repeated(
        self, node: yaml.Node, path: tuple[str, ...], above: tuple[int, ...]
    ) -> Iterator[str]:
        """Each key that a mapping has a second time, with the lines of both."""
        self._values += 1
        if id(node) in above:
            raise ValueError(f"{'.'.join(path)} contains itself")
        _check_size(self._values, len(above) + 1)
        if node.tag.removeprefix(_TAG) not in _KNOWN:
            raise ValueError(f"{'.'.join(path)}: {node.tag} is not a value that a recipe can have")
        above = (*above, id(node))
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                yield from self.repeated(item, (*path, str(number)), above)
        if isinstance(node, yaml.MappingNode):
            yield from self._repeated_here(node, path)
            for key, value in node.value:
                self._values += 1
                yield from self.repeated(value, (*path, str(key.value)), above)

    def _repeated_here(self, node: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[str]:
        first: dict[tuple[str, Any], int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"line {line}: a key is a word, not a list or a section")
            name = (key.tag, key.value)
            if name in first:
                where = ".".join((*path, key.value))
                yield f"{where} is given twice, on lines {first[name]} and {line}"
            first.setdefault(name, line)


def _check_size(values: int, levels: int) -> None:
    if levels > MOST_LEVELS:
        raise ValueError(f"nested more than {MOST_LEVELS} levels deep")
    if values > MOST_VALUES:
        raise ValueError(
            f"more than {MOST_VALUES:,} values, an alias counted as all that it stands for"
        )


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unshared(item) for item in value]
    return value
