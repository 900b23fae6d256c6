"""Prompt and response pairs, and conversations: read, cleaned, deduplicated and split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from tallyformer.config.data import PAIR_FIELDS, PairSource
from tallyformer.data.dialogues import BETTER_ANSWER, DIALOGUE_FIELDS, Dropped, read_dialogue
from tallyformer.data.documents import document_id
from tallyformer.data.filters import DUPLICATE
from tallyformer.data.hashing import plain_text
from tallyformer.data.held_out import held_out, units_of
from tallyformer.data.normalize import normalize
from tallyformer.data.rows import OF_A_PAIR, Row, missing_field, text_of, values_of
from tallyformer.data.sources import RowSource, pair_source
from tallyformer.errors import DataError
from tallyformer.tokenizer.messages import Message


@dataclass(frozen=True)
class Pair:
    """One question and its answer, and what was said after them.

    Attributes:
        id: where it was read.
        prompt: the question.
        response: the answer.
        context: text that stands before the prompt; "" if there is none.
        system: instructions for the assistant; "" if there are none.
        later: contents of the turns after the answer, the user's first; as many of each side.
    """

    id: str
    prompt: str
    response: str
    context: str = ""
    system: str = ""
    later: tuple[str, ...] = ()

    @property
    def question(self) -> str:
        """What the user says first: the context, an empty line, the prompt."""
        return f"{self.context}\n\n{self.prompt}" if self.context else self.prompt

    @property
    def turns(self) -> tuple[str, ...]:
        """Contents of all turns, the user's first."""
        return (self.question, self.response, *self.later)


@dataclass(frozen=True)
class PairSplit:
    """What training and validation get.

    Attributes:
        train: each pair as often as its source's `repeat` says.
        validation: each pair once.
        counts: by source, rows = train + validation + dropped by reason (repeats not counted).
    """

    train: Sequence[Pair]
    validation: Sequence[Pair]
    counts: Mapping[str, Mapping[str, int | Mapping[str, int]]]


def split_pairs(
    sections: Sequence[PairSource], *, data_root: str, validation_fraction: float, seed: int
) -> PairSplit:
    """Read all sources, leave repeated pairs out, and split by context, or else by prompt.

    No context lies on both sides, and no prompt of pairs without one; see `held_out`. The prompt
    of a conversation is the first thing that the user says; it ends before a later question that
    a pair of the other side asks.

    Args:
        sections: the recipe's sources.
        data_root: where relative paths are looked up first.
        validation_fraction: share of contexts and prompts.
        seed: decides the split, and the numbers of worked examples.

    Raises:
        DataError: a source cannot be read, or gives no pair.
    """
    found: list[tuple[RowSource, int, list[Pair], Counter[str]]] = []
    units: list[str] = []
    seen: set[bytes] = set()
    for section in sections:
        source = pair_source(section, data_root=data_root, seed=seed)
        dropped: Counter[str] = Counter()
        pairs = list(_first_ones(read_pairs(source, section, dropped), seen, dropped))
        found.append((source, section.repeat, pairs, dropped))
        units += units_of([(pair.context, pair.prompt) for pair in pairs])
        if not pairs:
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items()))
            raise DataError(
                f"source {source.name!r}: gives no pair ({reasons}). Check prompt_field and "
                "response_field (or messages_field), or remove the source"
            )
    return _split(found, iter(held_out(units, fraction=validation_fraction, seed=seed)))


def check_held_out(pairs: PairSplit) -> None:
    """Check that there are pairs to validate on.

    Raises:
        DataError: there are none.
    """
    if not pairs.validation:
        count = len({pair.id for pair in pairs.train})
        raise DataError(
            f"sft: all {count} pairs ask the same, so none can be held out for validation. "
            "Give pairs with other prompts; where the rows have a field that belongs to the "
            "question, such as Alpaca's input, name it in context_fields"
        )


def _split(
    found: Sequence[tuple[RowSource, int, list[Pair], Counter[str]]], held: Iterator[bool]
) -> PairSplit:
    of_source: list[tuple[RowSource, int, dict[bool, list[Pair]], Counter[str]]] = []
    asked: dict[bool, set[str]] = {False: set(), True: set()}
    for source, repeat, pairs, dropped in found:
        sides: dict[bool, list[Pair]] = {False: [], True: []}
        for pair in pairs:
            side = next(held)
            sides[side].append(pair)
            if not pair.context:
                asked[side].add(plain_text(pair.prompt))
        of_source.append((source, repeat, sides, dropped))
    train: list[Pair] = []
    validation: list[Pair] = []
    counts: dict[str, dict[str, int | Mapping[str, int]]] = {}
    for source, repeat, sides, dropped in of_source:
        train += [_up_to(pair, asked[True]) for pair in sides[False]] * repeat
        validation += [_up_to(pair, asked[False]) for pair in sides[True]]
        counts[source.name] = {
            "rows": sum(map(len, sides.values())) + sum(dropped.values()),
            "train": len(sides[False]),
            "validation": len(sides[True]),
            "dropped": dict(sorted(dropped.items())),
            "empty_files": len(source.empty_files),
        }
    return PairSplit(train, validation, counts)


def _up_to(pair: Pair, other_side: Set[str]) -> Pair:
    """The conversation up to the first later question that a pair of the other side asks."""
    for place in range(0, len(pair.later), 2):
        if plain_text(pair.later[place]) in other_side:
            return replace(pair, later=pair.later[:place])
    return pair


def read_pairs(source: RowSource, section: PairSource, dropped: Counter[str]) -> Iterator[Pair]:
    """The pairs of a source; rows that cannot be learnt from are counted in `dropped`.

    Raises:
        DataError: a row lacks a field, or a field is not text or no conversation.
    """
    for row in islice(source.rows(), section.max_pairs):
        try:
            pair = _pair(row, source, section)
        except Dropped as reason:
            dropped[str(reason)] += 1
        else:
            yield pair


def dialogue_field(section: PairSource, values: Mapping[str, Any]) -> str | None:
    """The field of a row that holds a conversation; None if the row is a pair.

    Args:
        section: the source in the recipe.
        values: the row.
    """
    if section.messages_field:
        return section.messages_field
    pair = (section.prompt_field, section.response_field)
    if pair != PAIR_FIELDS or all(values.get(name) is not None for name in pair):
        return None
    there = [name for name in DIALOGUE_FIELDS if name in values]
    return next((name for name in there if values[name] is not None), there[0] if there else None)


def _pair(row: Row, source: RowSource, section: PairSource) -> Pair:
    file = source.files[row.file]
    where, values = document_id(file, row.number), values_of(row, file)
    field = dialogue_field(section, values)
    wanted = [field] if field else [section.prompt_field, section.response_field]
    for name in wanted:
        if name not in values:
            raise missing_field(where, name, list(values), OF_A_PAIR)
    context = "\n\n".join(
        text for name in section.context_fields if (text := _clean(values, name, where))
    )
    if field:
        messages = read_dialogue(values[field], field, where, values.get(BETTER_ANSWER))
        return _conversation(f"{source.name}/{where}", messages, context)
    prompt, response = (_clean(values, name, where) for name in wanted)
    if not prompt:
        raise Dropped("empty_prompt")
    if not response:
        raise Dropped("empty_response")
    return Pair(f"{source.name}/{where}", prompt, response, context)


def _conversation(name: str, messages: list[Message], context: str) -> Pair:
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
    prompt, response, *later = (message["content"] for message in messages)
    return Pair(name, prompt, response, context, system, tuple(later))


def _clean(values: Mapping[str, Any], name: str, where: str) -> str:
    return normalize(text_of(values.get(name), name, where), "NFC")


def _first_ones(pairs: Iterator[Pair], seen: set[bytes], dropped: Counter[str]) -> Iterator[Pair]:
    for pair in pairs:
        whole = _digest(pair.system, *pair.turns)
        if whole in seen:
            dropped[DUPLICATE] += 1
        else:
            seen.add(whole)
            yield pair


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b("\x00".join(parts).encode(), digest_size=16).digest()
