"""Pages, help and messages use the field's present-day words, one for each thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_INSTEAD = {
    r"\bcures?\b|\bremed(y|ies)\b": "fix",
    r"\bg(o|oes|oing|one) on\b|\bwent on\b|\bcarr(y|ies) on\b": "resume, or continue",
    r"\b(for )?want of\b": "for lack of",
    r"\bby heart\b": "memorize",
    r"\banew\b|\bafresh\b": "again, or from scratch",
    r"\blest\b|\bshall\b|\bhenceforth\b|\bwhence\b|\bthereof\b": "present-day English",
    r"\breference system\b": "the earlier system of this name",
    r"\b(is|are) no (?!longer|more|other|such)(?<!there is no )(?<!there are no )": "is not a",
}
_PATTERNS = {re.compile(pattern, re.IGNORECASE): word for pattern, word in _INSTEAD.items()}


def _texts() -> Iterator[tuple[str, str]]:
    """Place and text: what users read, and docstrings; the shipped corpora are prose."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        yield page.name, page.read_text(encoding="utf-8")
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        yield recipe.name, recipe.read_text(encoding="utf-8")
    for file in (ROOT / "src" / "tallyformer").rglob("*.py"):
        if "worked_examples" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{file.name}:{node.lineno}", node.value


TEXTS = [(place, " ".join(text.split())) for place, text in _texts()]


@pytest.mark.parametrize("pattern", _PATTERNS, ids=lambda pattern: _PATTERNS[pattern])
def test_no_text_has_a_word_that_is_not_ours(pattern: re.Pattern[str]) -> None:
    hits = [f"{place}: {m[0]}" for place, text in TEXTS for m in pattern.finditer(text)]
    assert hits == [], f"write: {_PATTERNS[pattern]}"
