"""One document, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A cleaned text.

    Attributes:
        id: where it was read, for example `wiki-00.jsonl.zst:17`.
        source: name of its source in the recipe.
        text: the text, normalised.
    """

    id: str
    source: str
    text: str


def document_id(file: str, row: int) -> str:
    """The name of a document: its file, and its row from 1 if the file has rows (else 0)."""
    return f"{file}:{row}" if row else file
