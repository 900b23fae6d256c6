"""What is wrong with a recipe, in words: one line a problem, and not more than can be read."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from tallyformer.config.keys import nearest_key, section_at

MOST_PROBLEMS = 20
_MOST_CHARS = 80


def problems_of(error: ValidationError) -> tuple[list[str], int]:
    """A line for each of the first problems and one that counts the others; how many there are."""
    found = _own(error.errors(include_url=False))
    lines = [_describe(problem) for problem in found[:MOST_PROBLEMS]]
    more = len(found) - len(lines)
    return [*lines, *([f"and {more:,} more"] if more else [])], len(found)


def _own(problems: Sequence[Any]) -> list[Any]:
    """Without lists that are too short only because pydantic leaves out items that are wrong."""
    places = [problem["loc"] for problem in problems]
    return [
        problem
        for problem, place in zip(problems, places, strict=True)
        if problem["type"] != "too_short"
        or all(p == place or p[: len(place)] != place for p in places)
    ]


def _describe(problem: Any) -> str:
    place, given = problem["loc"], problem.get("input")
    location = ".".join(_shown(part) for part in place)
    if problem["type"] == "extra_forbidden":
        *parents, name = place
        return f"{location}: unknown key; {_what_was_meant(parents, str(name))}"
    if problem["type"] == "missing":
        return f"{location}: {'the list is too short' if _is_item(place) else _MISSING}"
    words = _WORDS.get(problem["type"])
    message = words(problem) if words else problem["msg"].removeprefix("Value error, ")
    message = re.sub(r"^(Input|String|Tuple) should ", "must ", message)
    got = f" (got {_short(repr(given))})" if isinstance(given, str | int | float | bool) else ""
    return f"{location}: {message}{got}" if location else message + got


_MISSING = "required key is missing"


def _is_item(place: Sequence[Any]) -> bool:
    return bool(place) and isinstance(place[-1], int)


def _a_list(problem: Any) -> str:
    given = problem["input"]
    if isinstance(given, dict) or section_at(problem["loc"]):
        return "must be a list of sections: each begins on a line of its own, with a - before it"
    if not isinstance(given, str):
        return "must be a list: write [first, second]"
    return f"must be a list: write {json.dumps([given], ensure_ascii=False, default=str)}"


def _a_section(problem: Any) -> str:
    given, section = problem["input"], section_at(problem["loc"])
    if isinstance(given, str) and re.fullmatch(r"[\w.]+:\S.*", given):
        key, _, value = given.partition(":")
        return f"must be a section: write `{key}: {value}`, with a space after the colon"
    keys = f"; its keys are: {', '.join(section.model_fields)}" if section else ""
    return f"must be a section of keys with values{keys}"


def _one_of(problem: Any) -> str:
    expected = str(problem["ctx"]["expected"])
    near = difflib.get_close_matches(str(problem["input"]), re.findall(r"'([^']*)'", expected), n=1)
    return f"must be {expected}" + (f"; did you mean {near[0]!r}?" if near else "")


def _length(problem: Any) -> str:
    limits = problem["ctx"]
    if "min_length" in limits:
        least = limits["min_length"]
        return f"must have {'an item' if least == 1 else f'{least} items'} at least"
    return f"must have at most {limits['max_length']} items, not {limits['actual_length']}"


def _says(text: str) -> Callable[[Any], str]:
    return lambda problem: text


def _number(kind: str) -> Callable[[Any], str]:
    def words(problem: Any) -> str:
        meant = _meant(problem["input"])
        return f"must be a {kind}" + (f": write {meant}" if meant else "")

    return words


def _meant(given: Any) -> str | None:
    """The number that somebody wrote in a way that YAML does not know: 10%, 0,5 or 50M."""
    found = re.fullmatch(r"(\d+)(?:[.,](\d{1,2}))? ?(%|[kKMG]?)", str(given))
    if found is None or not isinstance(given, str):
        return None
    whole, rest, unit = found[1], found[2] or "", found[3]
    powers = {"%": -2, "": 0, "k": 3, "K": 3, "M": 6, "G": 9}
    return f"{Decimal(f'{whole}.{rest}0').scaleb(powers[unit]).normalize():f}"


_NUMBER, _WHOLE = _number("number"), _number("whole number")
_TEXT = _says("must be a text: write it in quotes")
_TRUTH = _says("must be true or false")
_NAME = _says("must be a name of letters, digits, _ . and -, and begin with a letter or a digit")
_WORDS: Mapping[str, Callable[[Any], str]] = {
    "tuple_type": _a_list,
    "list_type": _a_list,
    "dict_type": _a_section,
    "model_type": _a_section,
    "model_attributes_type": _a_section,
    "literal_error": _one_of,
    "too_short": _length,
    "too_long": _length,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "string_type": _TEXT,
    "string_pattern_mismatch": _NAME,
}


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
