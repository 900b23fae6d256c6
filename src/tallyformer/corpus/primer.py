"""The finance primer that ships with the package: short articles by topic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Article:
    """One article.

    Attributes:
        id: topic and file name, for example "risk/hedging".
        title: its heading.
        text: the whole article in Markdown, heading included.
    """

    id: str
    title: str
    text: str


def articles() -> Iterator[Article]:
    """Every article, topics and articles in alphabetical order."""
    root = resources.files("tallyformer.corpus") / "primer"
    for topic in sorted((t for t in root.iterdir() if t.is_dir()), key=lambda t: t.name):
        for file in sorted(topic.iterdir(), key=lambda f: f.name):
            if file.name.endswith(".md"):
                text = file.read_text(encoding="utf-8").strip()
                title = text.partition("\n")[0].lstrip("# ").strip()
                yield Article(f"{topic.name}/{file.name.removesuffix('.md')}", title, text)
