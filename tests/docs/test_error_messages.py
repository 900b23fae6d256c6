"""Every message that docs/errors.md quotes is one that the program has."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUOTED = re.findall(
    r"^(?:error: |  - )(.*)$", (ROOT / "docs/errors.md").read_text(encoding="utf-8"), re.MULTILINE
)
_SHORTEST = 6
"""Letters of a piece of text that tell anything; it has more than one word."""
_OTHERS = re.compile(
    r"Expecting value|missing field"
    r"|Compressed file ended before the end-of-stream marker was reached"
    r"|No such command|Did you mean|Missing option|No space left on device|timed out"
)
"""Words of libraries and of the system."""


@cache
def _pieces() -> list[str]:
    """Every constant piece of text in the package, the longest first."""
    found = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(" ".join(node.value.split()))
    return sorted(
        (text for text in found if len(text) >= _SHORTEST and " " in text), key=len, reverse=True
    )


def _left(message: str) -> str:
    """What of a message stands nowhere in the package."""
    message = _OTHERS.sub(" | ", message)
    for piece in _pieces():
        message = message.replace(piece, " | ")
    return message


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_made_of_the_programs_own_words(message: str) -> None:
    left = _left(message)
    assert not re.search(r"(?:\b[a-z]{2,}\b,? ){3}[a-z]{2,}\b", left), left


def test_the_words_of_another_message_would_be_noticed() -> None:
    assert len(QUOTED) > 30
    assert "zebras that nobody" in _left("a.txt: zebras that nobody has ever written")
