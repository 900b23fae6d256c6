"""What may be imported from where, and the tree of errors as it is drawn."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

import tallyformer
from tallyformer import errors

ROOT = Path(__file__).parents[1]
_LINE = re.compile(r"^[│├└─ ]*(?P<name>\w+) +(?P<status>\d+) (?P<words>.+)$")


def _packages() -> list[str]:
    below = pkgutil.walk_packages(tallyformer.__path__, "tallyformer.")
    return ["tallyformer", "tallyformer.errors", *(m.name for m in below if m.ispkg)]


def _with_public_names() -> list[ModuleType]:
    modules = [importlib.import_module(name) for name in _packages()]
    return [module for module in modules if hasattr(module, "__all__")]


def _imported_or_defined(module: ModuleType) -> set[str]:
    """Public names that the module's own text binds, those for type checkers included."""
    assert module.__file__
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tallyformer"):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
    return {name for name in found if not name.startswith("_")} - {"lazy_names"}


@pytest.mark.parametrize("module", _with_public_names(), ids=lambda module: module.__name__)
def test_public_names_exist_and_none_is_missing(module: ModuleType) -> None:
    assert len(set(module.__all__)) == len(module.__all__)
    assert set(module.__all__) == _imported_or_defined(module)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert inspect.getdoc(getattr(module, name)), name


def test_the_documented_packages_have_public_names() -> None:
    names = {module.__name__ for module in _with_public_names()}
    inner = {"errors", "config", "tokenizer", "inference", "export.reference"}
    assert {"tallyformer", *(f"tallyformer.{name}" for name in inner)} <= names


def test_a_star_import_gives_exactly_the_public_names() -> None:
    for module in _with_public_names():
        names: dict[str, object] = {}
        exec(f"from {module.__name__} import *", names)
        assert set(names) - {"__builtins__"} == set(module.__all__)


@pytest.mark.parametrize("module", ["tallyformer", "tallyformer.errors", "tallyformer.inference"])
def test_a_name_that_is_not_there_is_an_attribute_error(module: str) -> None:
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = importlib.import_module(module).nothing_of_that_name


@pytest.mark.parametrize("module", ["tallyformer", "tallyformer.inference", "tallyformer.config"])
def test_importing_loads_no_torch(module: str) -> None:
    code = f"import {module}, sys; print(*{{'torch', 'transformers', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


_OF_EVERY_STAGE = {"run", "work_of"}
_OF_EVERY_FORMAT = {"write", "load", "rounding"}


def test_one_name_is_one_thing() -> None:
    """Beside those of every stage or export format, and commands, named as what they call."""
    homes: dict[str, set[str]] = defaultdict(set)
    for file in (ROOT / "src" / "tallyformer").rglob("*.py"):
        if file.parent.name == "cli":
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                homes[node.name].add(str(file))
    twice = {name: places for name, places in homes.items() if len(places) > 1}
    assert set(twice) <= _OF_EVERY_STAGE | _OF_EVERY_FORMAT


def _drawn() -> str:
    """The tree in the docstring of the errors."""
    lines = (errors.__doc__ or "").splitlines()
    return textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))


def _branches(cls: type[errors.TallyFormerError], prefix: str = "") -> list[tuple[str, str]]:
    """What stands before each name in a drawing of the tree, and the name; children by name."""
    tree = [(prefix, cls.__name__)]
    begin = re.sub("├── $", "│   ", prefix)
    begin = re.sub("└── $", "    ", begin)
    children = [getattr(errors, name) for name in sorted(errors.__all__)]
    children = [child for child in children if cls in child.__bases__]
    for number, child in enumerate(sorted(children, key=_order().index)):
        tree += _branches(child, begin + ("└── " if number == len(children) - 1 else "├── "))
    return tree


def _order() -> list[type[errors.TallyFormerError]]:
    """The classes in the order of the file."""
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    return [c for c in classes if issubclass(c, errors.TallyFormerError)]


def test_the_drawn_tree_is_that_of_the_classes() -> None:
    drawn = [_LINE.match(line) for line in _drawn().splitlines()]
    assert all(drawn)
    names = [(line[0][: line.start("name")], line["name"]) for line in drawn if line]
    assert names == _branches(errors.TallyFormerError)
    for line in drawn:
        assert line
        cls = getattr(errors, line["name"])
        status = errors.Interrupted("x", 0).exit_status if cls is errors.Interrupted else 0
        assert int(line["status"]) == (status or cls.exit_status), line["name"]
        assert ("also a ValueError" in line["words"]) == issubclass(cls, ValueError)


def test_every_error_of_the_package_is_in_the_tree() -> None:
    defined = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                if bases & set(errors.__all__):
                    defined.add(node.name)
    assert defined | {"TallyFormerError"} == set(errors.__all__)


def test_the_page_of_errors_draws_the_same_tree() -> None:
    assert _drawn() in (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
