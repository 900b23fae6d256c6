"""What people say around questions: greetings, thanks, off-topic questions, follow-ups.

They ship beside the questions on the primer, so that a model fine-tuned on these answers "hello"
and "Why is that bad?" too, and says so where it knows nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from typing import Any

from tallyformer.corpus.questions import Fact, facts

Turns = tuple[str, ...]
"""Contents of a conversation, the user's first."""

_OTHER_PHRASINGS = 2
"""Ways in which each follow-up is asked in training, besides the usual one, the first of them."""


@dataclass(frozen=True)
class Manner:
    """Something that people say, in several ways, and its answer.

    Attributes:
        id: kind and number.
        kind: greeting, thanks, goodbye, identity, unclear, off-topic or follow-up.
        questions: phrasings for training.
        held_out: phrasings that are never trained on.
        answer: the answer.
        expected: an answer is as expected if it contains one of these.
        fact: the fact that was answered just before; None where it does not matter.
    """

    id: str
    kind: str
    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: str
    expected: tuple[str, ...]
    fact: Fact | None = None


def manners() -> list[Manner]:
    """Every one, in the order of the files' names."""
    known = {fact.id: fact for fact in facts()}
    root = resources.files("tallyformer.corpus") / "manners"
    asks = json.loads((root / "asks.json").read_text(encoding="utf-8"))
    found: list[Manner] = []
    for file in sorted(root.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".jsonl"):
            lines = file.read_text(encoding="utf-8").splitlines()
            found += [_manner(json.loads(line), asks, known) for line in lines if line.strip()]
    return found


def conversations() -> Iterator[Turns]:
    """Every fact in every training phrasing, and what is said around it.

    A question that continues into a follow-up is not repeated alone: its first answer is learnt
    from the longer conversation. The usual question, the first of its fact, continues into each of
    the usual follow-ups, as most people will ask. No held-out phrasing is among them.
    """
    every, known = manners(), facts()
    others = [(q, m.answer) for m in every if m.fact is None for q in m.questions]
    for number, fact in enumerate(known):
        own = [manner for manner in every if manner.fact == fact]
        usual, *ways = fact.questions
        usually: list[Turns] = [(manner.questions[0], manner.answer) for manner in own]
        for rest in usually or [()]:
            yield (usual, fact.answer, *rest)
        rests: list[Turns] = [*_follow_ups(own), *_changes_of_topic(number, known, others)]
        for place in range(max(len(ways), len(rests))):
            rest = rests[place] if place < len(rests) else ()
            yield (_of(ways, number + place), fact.answer, *rest)
    for number, other in enumerate(others):
        fact = _of(known, 17 * number)
        rest = (_of(fact.questions, number), fact.answer) if number % 4 == 0 else ()
        yield (*other, *rest)


def questions_as_text() -> Iterator[Turns]:
    """Every fact in every training phrasing; one phrasing continues into each of its follow-ups.

    For pretraining, which learns the answers that fine-tuning then learns to give when asked.
    """
    every = manners()
    for fact in facts():
        own = [manner for manner in every if manner.fact == fact]
        for place, question in enumerate(fact.questions):
            rest: Turns = ()
            if place < len(own):
                follow_up = own[place]
                rest = (_of(follow_up.questions, _number(follow_up)), follow_up.answer)
            yield (question, fact.answer, *rest)


def held_out_conversations() -> Iterator[tuple[Manner, Turns]]:
    """Each held-out phrasing as the last question of a conversation, with what is expected.

    Of a follow-up there is one, after a held-out question for its fact and the right answer.
    """
    for number, manner in enumerate(manners()):
        if manner.fact is None:
            yield from ((manner, (question,)) for question in manner.held_out)
        else:
            before = (manner.fact.held_out[0], manner.fact.answer)
            yield manner, (*before, _of(manner.held_out, number))


def _follow_ups(own: Sequence[Manner]) -> Iterator[Turns]:
    """How a conversation continues after a fact less usually; also two follow-ups in a row."""
    for manner in own:
        others = manner.questions[1:]
        start, step = _number(manner), max(1, len(others) // _OTHER_PHRASINGS)
        for turn in range(min(_OTHER_PHRASINGS, len(others))):
            yield (_of(others, start + turn * step), manner.answer)
    for one, two in pairwise(own):
        start = _number(two)
        yield (_of(one.questions, start), one.answer, _of(two.questions, start), two.answer)


def _changes_of_topic(
    number: int, known: Sequence[Fact], others: Sequence[Turns]
) -> Iterator[Turns]:
    """After some facts something else."""
    if number % 2:
        yield _of(others, 7 * number)
    elif number % 3:
        later = _of(known, number + 50)
        yield (_of(later.questions, number), later.answer)


def _manner(row: Mapping[str, Any], asks: Mapping[str, Any], known: Mapping[str, Fact]) -> Manner:
    phrasings = asks[row["ask"]] if "ask" in row else row
    name = row.get("name", "")
    return Manner(
        id=row["id"],
        kind=row["kind"],
        questions=tuple(q.format(name=name) for q in phrasings["questions"]),
        held_out=tuple(q.format(name=name) for q in phrasings["held_out"]),
        answer=row["answer"],
        expected=tuple(row["expected"]),
        fact=known[row["fact"]] if "fact" in row else None,
    )


def _number(manner: Manner) -> int:
    return int(manner.id[-3:])


def _of(items: Any, place: int) -> Any:
    """The item at a place, counted round and round."""
    return items[place % len(items)]
