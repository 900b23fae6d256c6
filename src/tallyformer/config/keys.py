"""Which keys a recipe can have, read off its sections."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from tallyformer.config.base import Section
from tallyformer.config.recipe import Recipe

_FIRST = "0"
"""The item of a list that is named where any could be."""


def section_at(parents: Sequence[Any]) -> type[Section] | None:
    """The class of the section to which keys and list numbers lead; None where there is none."""
    section: type[Section] | None = Recipe
    for part in parents:
        if isinstance(part, int) or str(part).isdecimal():
            continue
        field = section.model_fields.get(str(part)) if section else None
        section = section_of(field.annotation) if field else None
    return section


def nearest_key(parents: Sequence[Any], name: str) -> str | None:
    """The key that somebody meant by an unknown one.

    In order: the same key in a section below, the most similar one beside it, the same key
    anywhere, the most similar one below. A key beside is named alone, others with their path.

    Args:
        parents: keys and list numbers that lead to the section.
        name: the unknown key.
    """
    here = section_at(parents)
    beside = list(here.model_fields) if here else []
    path = tuple(str(part) for part in parents)
    below = [(*path, *keys) for keys in _keys_below(here)] if here else []
    everywhere = list(_keys_below(Recipe))
    return (
        _same(below, name, path)
        or next(iter(difflib.get_close_matches(name, beside, n=1, cutoff=0.6)), None)
        or _same(everywhere, name, path)
        or _similar(below, name, path)
    )


def _keys_below(section: type[Section]) -> Iterator[tuple[str, ...]]:
    """The path to every key of a section and of those in it."""
    for name, field in section.model_fields.items():
        yield (name,)
        inner = section_of(field.annotation)
        if inner:
            place = (name, _FIRST) if _is_list(field.annotation) else (name,)
            yield from ((*place, *keys) for keys in _keys_below(inner))


def _same(paths: Sequence[tuple[str, ...]], name: str, near: tuple[str, ...]) -> str | None:
    found = [path for path in paths if path[-1] == name]
    best = max(found, key=lambda path: (_in_common(path, near), -len(path)), default=None)
    return ".".join(best) if best else None


def _similar(paths: Sequence[tuple[str, ...]], name: str, near: tuple[str, ...]) -> str | None:
    close = difflib.get_close_matches(name, [path[-1] for path in paths], n=1, cutoff=0.75)
    return _same(paths, close[0], near) if close else None


def _in_common(path: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(path, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(path), len(other)))


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, alone or in a list; None for any other field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation if issubclass(annotation, Section) else None
    return next(filter(None, map(section_of, _arguments(annotation))), None)


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) is tuple or any(map(_is_list, _arguments(annotation)))


def _arguments(annotation: Any) -> tuple[Any, ...]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation):
        return typing.get_args(annotation)
    return ()
