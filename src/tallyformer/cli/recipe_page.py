"""The tables of docs/recipes.md, made from the sections of `tallyformer.config`.

A section's class docstring stands above its table, the docstring below a field is the key's
meaning; defaults, allowed values and what a key is for are those of the code.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from tallyformer.config.base import Section, Use
from tallyformer.config.keys import section_of
from tallyformer.config.recipe import Recipe
from tallyformer.config.training import TrainSection
from tallyformer.errors import ArtifactError

MARKER = "<!-- Generated from here on: python -m tallyformer.cli.docs -->\n"
_TECHNICAL = 10**9
"""A bound from here on keeps numbers within the machine's and is not worth a reader's time."""


def recipe_page(page: str) -> str:
    """The page with its tables made again; what stands before the marker is kept.

    Raises:
        ArtifactError: the page has no marker.
    """
    prose, marker, _ = page.partition(MARKER)
    if not marker:
        raise ArtifactError(f"the recipes' page has no line {MARKER.strip()!r}. Restore it")
    return prose + MARKER + "\n" + "\n".join(_parts())


def documented_sections() -> dict[type[Section], list[str]]:
    """Every section's class with the keys that lead to it, in the order of the page.

    What every training has in common comes before the first training, its own sections with a path
    that is relative to it.
    """
    found: dict[type[Section], list[str]] = {}
    _collect(Recipe, "", found)
    return found


def own_fields(section: type[Section]) -> dict[str, FieldInfo]:
    """The keys of a section that are not those of every training."""
    shared = TrainSection.model_fields if _is_a_training(section) else {}
    return {name: field for name, field in section.model_fields.items() if name not in shared}


def attribute_docstrings(section: type[Section]) -> dict[str, str]:
    """The docstring below each field of a section and of those it inherits from, on one line."""
    texts: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if not issubclass(cls, Section):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                texts[ast.unparse(field.target)] = " ".join(ast.literal_eval(below.value).split())
    return texts


def _is_a_training(section: type[Section]) -> bool:
    return issubclass(section, TrainSection) and section is not TrainSection


def _collect(section: type[Section], path: str, found: dict[type[Section], list[str]]) -> None:
    if _is_a_training(section) and TrainSection not in found:
        _collect(TrainSection, "", found)
    paths = found.setdefault(section, [])
    if path in paths:
        return
    paths.append(path)
    for name, field in own_fields(section).items():
        if inner := section_of(field.annotation):
            _collect(inner, f"{path}.{name}".lstrip("."), found)


def _parts() -> Iterator[str]:
    sections = documented_sections()
    for section, paths in sections.items():
        yield f"## {_heading(section, paths)}\n"
        yield _text(section)
        yield "| key | default | values | meaning |\n| --- | --- | --- | --- |"
        meanings, uses = attribute_docstrings(section), _uses(section, sections)
        for name, field in own_fields(section).items():
            use = f"For {uses[name].words}. " if name in uses else ""
            cells = (f"`{name}`", _default(field), _values(field), use + meanings[name])
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""


def _heading(section: type[Section], paths: list[str]) -> str:
    named = {Recipe: "The whole recipe", TrainSection: "Every training"}
    listed = ", ".join(f"`{path}`" for path in paths)
    return f"{named.get(section, listed)} (`{section.__name__}`)"


def _text(section: type[Section]) -> str:
    text = inspect.getdoc(section) or ""
    for keys in section.one_of:
        listed = ", ".join(f"`{key}`" for key in keys)
        text += f"\n\nExactly one of {listed} is given."
    if _is_a_training(section):
        text += (
            f" The keys of [every training](#every-training-{TrainSection.__name__.lower()}) too."
        )
    return text + "\n"


def _uses(section: type[Section], sections: Mapping[type[Section], list[str]]) -> dict[str, Use]:
    """What the keys of a section are for, also where a section above says it."""
    uses = {key: use for key, use in section.uses.items() if "." not in key}
    for above in sections:
        for key, use in above.uses.items():
            parent, _, last = key.rpartition(".")
            if parent and section_of(above.model_fields[parent].annotation) is section:
                uses[last] = use
    return uses


def _default(field: FieldInfo) -> str:
    default: Any = field.default
    if field.is_required():
        return "required"
    if default is None:
        return "none"
    if isinstance(default, Section):
        return "defaults"
    return f"`{_yaml(default)}`"


def _yaml(value: Any) -> str:
    """A value as a recipe writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return re.sub(r"e([+-])0*", lambda m: "e" + m[1].strip("+"), f"{value:g}")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return value or '""'


def _values(field: FieldInfo) -> str:
    """The values that a key may have."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    kind: Any = kinds[0] if NoneType in get_args(field.annotation) else field.annotation
    if section_of(kind):
        return "list of sections" if get_origin(kind) is tuple else "section"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is dict:
        return "numbers by name"
    if get_origin(kind) is tuple:
        return "list of texts" if str in get_args(kind) else "list of numbers"
    names = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text"}
    return names[kind] + _bounds(field)


def _bounds(field: FieldInfo) -> str:
    words = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "to below {}"}
    limits = {
        name: getattr(limit, name)
        for limit in field.metadata
        for name in words
        if getattr(limit, name, _TECHNICAL) < _TECHNICAL
    }
    return "".join(f" {words[name].format(_yaml(value))}" for name, value in limits.items())
