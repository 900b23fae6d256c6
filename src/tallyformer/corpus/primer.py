"""The finance primer that ships with the package: short articles by topic."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources


def articles() -> Iterator[str]:
    """Every article in Markdown, heading included; topics and articles in alphabetical order."""
    root = resources.files("tallyformer.corpus") / "primer"
    for topic in sorted((t for t in root.iterdir() if t.is_dir()), key=lambda t: t.name):
        for file in sorted(topic.iterdir(), key=lambda f: f.name):
            if file.name.endswith(".md"):
                yield file.read_text(encoding="utf-8").strip()
