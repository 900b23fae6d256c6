"""What is wrong with a recipe, in words: one line a problem, and not more than can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from tallyformer.config.keys import nearest_key, section_at

MOST_PROBLEMS = 20
_MOST_CHARS = 80


def problems_of(error: ValidationError) -> list[str]:
    """A line for each of the first problems, and one that counts the others."""
    found = error.errors(include_url=False)
    lines = [_describe(problem) for problem in found[:MOST_PROBLEMS]]
    more = len(found) - len(lines)
    return [*lines, f"and {more:,} more"] if more else lines


def _describe(problem: Any) -> str:
    location = ".".join(_shown(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, name = problem["loc"]
        return f"{location}: unknown key; {_what_was_meant(parents, str(name))}"
    if problem["type"] == "missing":
        return f"{location}: required key is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    got = f" (got {_short(repr(given))})" if isinstance(given, str | int | float | bool) else ""
    return f"{location}: {message}{got}" if location else message + got


def _what_was_meant(parents: Sequence[Any], name: str) -> str:
    near = nearest_key(parents, name[:_MOST_CHARS])
    if near:
        return f"did you mean {near!r}?"
    section = section_at(parents)
    return f"there are: {', '.join(section.model_fields) if section else 'none'}"


def _shown(part: object) -> str:
    text = str(part)
    return _short(text if text.isprintable() else repr(text))


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}..."
