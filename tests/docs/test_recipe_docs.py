"""docs/recipes.md names every key of every section, with its default, and no other."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.fields import FieldInfo

import tallyformer.config
from tallyformer.config import load_recipe
from tallyformer.config.base import Section
from tallyformer.config.training import TrainSection

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
HEADING = re.compile(r"^## .*\(`(\w+)`\)$")
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+) \|$")


def _sections() -> dict[str, type[Section]]:
    found: dict[str, type[Section]] = {}
    for module in pkgutil.iter_modules(tallyformer.config.__path__):
        names = vars(importlib.import_module(f"tallyformer.config.{module.name}"))
        for value in names.values():
            if isinstance(value, type) and issubclass(value, Section) and value is not Section:
                if value.__name__.startswith("_"):
                    continue
                found[value.__name__] = value
    return found


def _tables(page: str) -> dict[str, dict[str, str]]:
    """By class: the keys of its table with the text of their defaults."""
    tables: dict[str, dict[str, str]] = {}
    keys: dict[str, str] = {}
    for line in page.splitlines():
        if line.startswith("## "):
            heading = HEADING.match(line)
            keys = tables.setdefault(heading.group(1), {}) if heading else {}
        elif row := ROW.match(line):
            assert row.group(1) not in keys, f"{row.group(1)} stands twice in one table"
            keys[row.group(1)] = row.group(2)
    return tables


def _own_fields(section: type[Section]) -> dict[str, FieldInfo]:
    """The keys of a section that are not those of every training."""
    inherits = section is not TrainSection and issubclass(section, TrainSection)
    shared = TrainSection.model_fields if inherits else {}
    return {n: f for n, f in section.model_fields.items() if n not in shared}


def _says(cell: str, field: FieldInfo) -> bool:
    """Whether a cell of the page shows the field's default."""
    if field.is_required():
        return cell == "required"
    default: Any = field.default
    if default is None:
        return cell == "none"
    if isinstance(default, Section):
        return cell == "defaults"
    text = cell.removeprefix("`").removesuffix("`")
    if isinstance(default, bool):
        return text == str(default).lower()
    if isinstance(default, int | float):
        return float(text) == default
    if isinstance(default, tuple):
        return bool(yaml.safe_load(text) == list(default))
    return text in (default, f'"{default}"')


SECTIONS = _sections()
TABLES = _tables(PAGE.read_text(encoding="utf-8"))


def test_every_section_has_a_table_and_no_other_is_there() -> None:
    assert set(TABLES) == set(SECTIONS)


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_a_table_has_exactly_the_keys_of_its_section(name: str) -> None:
    assert list(TABLES[name]) == list(_own_fields(SECTIONS[name]))


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_a_table_shows_the_defaults_of_the_code(name: str) -> None:
    fields = _own_fields(SECTIONS[name])
    wrong = {n: cell for n, cell in TABLES[name].items() if not _says(cell, fields[n])}
    assert not wrong


@pytest.mark.parametrize("recipe", sorted((PAGE.parents[1] / "recipes").glob("*.yaml")))
def test_every_recipe_is_valid_and_named_on_the_page(recipe: Path) -> None:
    load_recipe(recipe)
    assert f"`{recipe.name}`" in PAGE.read_text(encoding="utf-8")
