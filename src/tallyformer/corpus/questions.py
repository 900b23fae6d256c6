"""Questions on the primer that ship with the package, each asked in several ways."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Fact:
    """One fact, with the ways to ask for it.

    Attributes:
        id: topic and number.
        topic: the primer's topic.
        questions: phrasings for training.
        held_out: phrasings that are never trained on.
        answer: the answer.
        key_facts: an answer is right if it contains one of these.
    """

    id: str
    topic: str
    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: str
    key_facts: tuple[str, ...]


def facts() -> list[Fact]:
    """Every fact, topics in alphabetical order."""
    root = resources.files("tallyformer.corpus") / "questions"
    found: list[Fact] = []
    for file in sorted(root.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".jsonl"):
            lines = file.read_text(encoding="utf-8").splitlines()
            found += [_fact(line) for line in lines if line.strip()]
    return found


def _fact(line: str) -> Fact:
    row = json.loads(line)
    return Fact(
        id=row["id"],
        topic=row["topic"],
        questions=tuple(row["questions"]),
        held_out=tuple(row["held_out"]),
        answer=row["answer"],
        key_facts=tuple(row["key_fact"]),
    )
