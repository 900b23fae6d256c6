"""What the pages point to exists: files, commands, options, paths of the code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tallyformer.cli.main import tallyformer as root

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src" / "tallyformer"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"(?<!from )(?<!import )\btallyformer +([a-z][a-z-]*)([^\n`]*)")
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
TREE = re.compile(r"^```text\n(errors\.py .*?)^```$", re.MULTILINE | re.DOTALL)


def _name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def _anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def _calls(page: Path) -> Iterator[tuple[str, str]]:
    """Every `tallyformer WORD REST` in a page's code, messages of errors left out."""
    for code in CODE.findall(page.read_text(encoding="utf-8")):
        for line in code.splitlines():
            if not line.startswith(("error:", "  - ")):
                yield from CALL.findall(line)


def _command(name: str, rest: str) -> click.Command | None:
    """The command of a call; a group's own command where the rest names one."""
    context = click.Context(root)
    command = root.get_command(context, name)
    words = rest.split()
    if isinstance(command, click.Group) and words and re.fullmatch("[a-z][a-z-]*", words[0]):
        return command.get_command(context, words[0])
    return command


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_and_option_exists(page: Path) -> None:
    wrong = []
    for name, rest in _calls(page):
        command = _command(name, rest)
        if command is None:
            wrong.append(f"tallyformer {name}{rest}")
            continue
        known = {"--help", *(o for p in command.params for o in p.opts)}
        wrong += [f"{name}: {o}" for o in OPTION.findall(rest) if o not in known]
    assert not wrong


def test_the_search_for_commands_finds_them() -> None:
    found = {name for page in PAGES for name, _ in _calls(page)}
    assert {"run", "plan", "prepare", "chat", "config", "sft", "doctor"} <= found
    assert _command("pretrian", "") is None and _command("sft", " inspect --count 2") is not None


def test_the_file_tree_of_the_architecture_page_names_every_module_and_nothing_else() -> None:
    tree = TREE.search((REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert tree is not None
    named = [name for line in tree.group(1).splitlines() for name in _named(line)]
    assert not [name for name in named if not (PACKAGE / name).exists()]
    assert len(set(named)) == len(named)
    folders = tuple(name for name in named if name.endswith("/"))
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    inside = {name for name in modules if name.startswith(folders)}
    assert {m for m in modules - inside if not m.endswith("__init__.py")} <= set(named)


def _named(line: str) -> Iterator[str]:
    """The paths that a line of the tree stands for."""
    for entry in re.split(r"  +", line)[0].split(", "):
        yield from _expanded(entry)


def test_every_page_is_in_the_index() -> None:
    index = REPOSITORY / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text("utf-8"))}
    pages = {page for page in (REPOSITORY / "docs").rglob("*.md") if page != index}
    assert pages <= linked


def _expanded(entry: str) -> list[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    parts = [part.split(",") for part in re.split(r"[{}]", entry)]
    return ["".join(choice) for choice in itertools.product(*parts)]
