"""What is wrong with a text that is not YAML: the place, the line, and what to look for."""

from __future__ import annotations

import re

import yaml
from yaml.reader import ReaderError

_MOST_CHARS = 80
_TAB = "a tab stands in the indentation: YAML allows only spaces there"
_COLON = "write `key: value`, with a space after the colon"
_INDENT = "keys of one section stand equally far to the right, below each other"
_QUOTE = "the quote that begins here is never closed"
_HINTS: tuple[tuple[str, str], ...] = (
    (r"scanning an anchor", "a text that begins with & needs quotes"),
    (r"'\\t' that cannot start", _TAB),
    (r"that cannot start any token", "a text that begins with this character needs quotes"),
    (r"unknown escape character", "in double quotes \\ has a meaning of its own: use single ones"),
    (r"found unexpected end of stream", _QUOTE),
    (r"flow sequence", "the bracket [ that begins here is never closed, or a comma is missing"),
    (r"flow mapping", "the brace { that begins here is never closed, or a comma is missing"),
    (r"expected the node content", "a text that begins with this character needs quotes"),
    (r"could not find expected ':'", f"no key and value: {_COLON}"),
    (
        r"undefined alias|scanning an alias",
        "no & names what this * stands for; a text that begins with * needs quotes",
    ),
    (r"duplicate anchor", "two & have the same name"),
    (
        r"sequence entries are not allowed",
        "a list begins on a line of its own, or is written [a, b]",
    ),
    (r"another document", "a recipe is one document: remove this line and what is not meant"),
    (r"<document start>", f"indented otherwise than the first line; {_INDENT}"),
    (r"YAML document \(version", "remove this line"),
)


def yaml_problem(error: Exception, text: str) -> str:
    """One line: `line 3, column 1: a tab stands in the indentation ... ('\\tsteps: 1')`.

    Args:
        error: what reading `text` raised.
        text: the whole YAML.
    """
    if isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position)
        column = error.position - (text.rfind("\n", 0, error.position) + 1)
        what = f"the character U+{ord(text[error.position]):04X} is not allowed: remove it"
        return _placed(line, column, what, text)
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    said = f"{error.context or ''} {error.problem or ''}"
    mark = error.problem_mark or error.context_mark
    if error.context_mark and re.search(r"end of stream|flow |expected ':'|scanning an a", said):
        mark = error.context_mark
    if mark is None:
        return " ".join(said.split())
    hint = _hint(said, mark.line, mark.column, text.splitlines())
    return _placed(mark.line, mark.column, hint, text)


def _hint(said: str, line: int, column: int, lines: list[str]) -> str:
    for pattern, hint in _HINTS:
        if re.search(pattern, said):
            return hint
    before = lines[line - 1] if line else ""
    here = lines[line] if line < len(lines) else ""
    if "mapping values are not allowed" in said:
        if re.search(r":\s", here[:column]):
            return "a text in which a colon and a space stand needs quotes"
        if re.match(r"\s*(- )?[\w.]+:\S", before):
            return f"the line before has no value: {_COLON}"
        return f"indented too far; {_INDENT}"
    if "block end" in said and re.search(r"""['"]""", here[:column]):
        return "a text continues behind its closing quote: write '' for a ' within quotes"
    if re.match(r"\s*-\S", here):
        return "write a space after the - of a list"
    return f"indented otherwise than the keys above; {_INDENT}" if "block end" in said else said


def _placed(line: int, column: int, what: str, text: str) -> str:
    lines = text.splitlines()
    shown = repr(lines[line]).replace("\\\\", "\\") if line < len(lines) else "the end"
    if len(shown) > _MOST_CHARS:
        shown = shown[: _MOST_CHARS - 3] + "..."
    return f"line {line + 1}, column {column + 1}: {' '.join(what.split())} ({shown})"
