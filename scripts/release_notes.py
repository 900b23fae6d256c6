"""A version's section of CHANGELOG.md, for its release.

    python scripts/release_notes.py v0.1.0

Refuses a tag that is not the package's version, and a section that is missing or has no date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_VERSION = re.compile(r'^__version__ = "(\d+\.\d+\.\d+)"$', re.MULTILINE)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def version(root: Path = ROOT) -> str:
    """The package's version."""
    text = (root / "src" / "tallyformer" / "__init__.py").read_text(encoding="utf-8")
    (found,) = _VERSION.findall(text)
    return str(found)


def sections(changelog: str) -> dict[str, tuple[str, str]]:
    """Date and text by version, the newest first."""
    parts = re.split(r"^## \[(.+?)\] - (.+)$", changelog, flags=re.MULTILINE)[1:]
    return {
        name: (date, text.strip())
        for name, date, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def notes(tag: str, root: Path = ROOT) -> str:
    """The text for a tag.

    Raises:
        SystemExit: it cannot be released.
    """
    name = tag.removeprefix("v")
    if tag != f"v{version(root)}":
        sys.exit(f"error: {tag}: the package is {version(root)}. Tag v{version(root)}")
    found = sections((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if name not in found:
        sys.exit(f"error: CHANGELOG.md: no section [{name}]. Write what changed")
    date, text = found[name]
    if not _DATE.fullmatch(date):
        sys.exit(f"error: CHANGELOG.md: [{name}] is dated {date}. Write the day, as 2026-11-28")
    return text


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} TAG")
    print(notes(sys.argv[1]))
