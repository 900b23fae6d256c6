"""docs/recipes.md has every key of every section, made from the sections themselves."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import tallyformer.config
from tallyformer.cli.recipe_page import (
    MARKER,
    attribute_docstrings,
    documented_sections,
    own_fields,
    recipe_page,
)
from tallyformer.config import load_recipe
from tallyformer.config.base import Section
from tallyformer.config.plain_yaml import read_plain_yaml
from tallyformer.errors import ArtifactError

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = documented_sections()


def _classes() -> set[type[Section]]:
    modules = pkgutil.iter_modules(tallyformer.config.__path__)
    names = [vars(importlib.import_module(f"tallyformer.config.{m.name}")) for m in modules]
    classes = {value for module in names for value in module.values() if isinstance(value, type)}
    return {c for c in classes if issubclass(c, Section) and not c.__name__.startswith("_")}


def test_the_committed_page_is_what_the_sections_say() -> None:
    assert recipe_page(TEXT) == TEXT, "python -m tallyformer.cli.docs"


def test_every_section_has_a_table() -> None:
    assert set(SECTIONS) == _classes() - {Section}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_has_a_meaning(section: type[Section]) -> None:
    meanings = attribute_docstrings(section)
    assert [name for name in own_fields(section) if not meanings.get(name)] == []


def test_a_default_that_is_shown_can_be_pasted_into_a_recipe() -> None:
    rows = [line.split(" | ") for line in TEXT.partition(MARKER)[2].splitlines()]
    shown = [row[1].strip("`") for row in rows if len(row) > 2 and row[1].startswith("`")]
    defaults = [f.default for s in SECTIONS for f in own_fields(s).values() if not f.is_required()]
    told = [d for d in defaults if d is not None and not isinstance(d, Section)]
    assert [read_plain_yaml(text) for text in shown] == [
        list(default) if isinstance(default, tuple) else default for default in told
    ]


def test_a_page_without_the_marker_or_with_another_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no line"):
        recipe_page("# Recipes\n")
    (tmp_path / "cli.md").write_bytes((PAGE.parent / "cli.md").read_bytes())
    (tmp_path / "recipes.md").write_text(TEXT + "more\n", encoding="utf-8")
    call = [sys.executable, "-m", "tallyformer.cli.docs", "--folder", str(tmp_path)]
    done = subprocess.run([*call, "--check"], capture_output=True, text=True)
    assert done.returncode == 3 and "recipes.md: out of date" in done.stderr
    subprocess.run(call, check=True)
    assert (tmp_path / "recipes.md").read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("recipe", sorted((PAGE.parents[1] / "recipes").glob("*.yaml")))
def test_every_recipe_is_valid_and_named_on_the_page(recipe: Path) -> None:
    load_recipe(recipe)
    assert f"`{recipe.name}`" in TEXT
