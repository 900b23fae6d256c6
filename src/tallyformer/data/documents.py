"""The name of a document, which says where it came from."""

from __future__ import annotations


def document_id(file: str, row: int) -> str:
    """Its file, and its row from 1 if the file has rows (else 0): `wiki-00.jsonl.zst:17`."""
    return f"{file}:{row}" if row else file
