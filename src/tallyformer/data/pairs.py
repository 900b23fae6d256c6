"""Prompt and response pairs: read, cleaned, deduplicated and split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from tallyformer.config.data import PairSource
from tallyformer.data.documents import document_id
from tallyformer.data.filters import DUPLICATE
from tallyformer.data.held_out import held_out, units_of
from tallyformer.data.normalize import normalize
from tallyformer.data.rows import Row, fields_of
from tallyformer.data.sources import RowSource, pair_source
from tallyformer.errors import DataError


@dataclass(frozen=True)
class Pair:
    """One question and its answer.

    Attributes:
        id: where it was read.
        prompt: the question.
        response: the answer.
        context: text that stands before the prompt; "" if there is none.
    """

    id: str
    prompt: str
    response: str
    context: str = ""

    @property
    def question(self) -> str:
        """What the user says: the context, an empty line, the prompt."""
        return f"{self.context}\n\n{self.prompt}" if self.context else self.prompt


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

    No context lies on both sides, and no prompt of pairs without one; see `held_out`.

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
                "response_field, or remove the source"
            )
    return _split(found, iter(held_out(units, fraction=validation_fraction, seed=seed)))


def _split(
    found: Sequence[tuple[RowSource, int, list[Pair], Counter[str]]], held: Iterator[bool]
) -> PairSplit:
    train: list[Pair] = []
    validation: list[Pair] = []
    counts: dict[str, dict[str, int | Mapping[str, int]]] = {}
    for source, repeat, pairs, dropped in found:
        sides: dict[bool, list[Pair]] = {False: [], True: []}
        for pair in pairs:
            sides[next(held)].append(pair)
        train += sides[False] * repeat
        validation += sides[True]
        counts[source.name] = {
            "rows": len(pairs) + sum(dropped.values()),
            "train": len(sides[False]),
            "validation": len(sides[True]),
            "dropped": dict(sorted(dropped.items())),
            "empty_files": len(source.empty_files),
        }
    return PairSplit(train, validation, counts)


def read_pairs(source: RowSource, section: PairSource, dropped: Counter[str]) -> Iterator[Pair]:
    """The pairs of a source; rows with an empty side are counted in `dropped`.

    Raises:
        DataError: a row lacks a field, or a field is not text.
    """
    for row in islice(source.rows(), section.max_pairs):
        pair = _pair(row, source)
        if not pair.prompt:
            dropped["empty_prompt"] += 1
        elif not pair.response:
            dropped["empty_response"] += 1
        else:
            yield pair


def _pair(row: Row, source: RowSource) -> Pair:
    file = source.files[row.file]
    values = fields_of(row, file, source.required, source.optional)
    clean = {name: normalize(value, "NFC") for name, value in values.items()}
    prompt, response = (clean[name] for name in source.required)
    context = "\n\n".join(clean[n] for n in source.optional if clean.get(n))
    name = document_id(file, row.number)
    return Pair(f"{source.name}/{name}", prompt, response, context)


def _first_ones(pairs: Iterator[Pair], seen: set[bytes], dropped: Counter[str]) -> Iterator[Pair]:
    for pair in pairs:
        whole = _digest(pair.question, pair.response)
        if whole in seen:
            dropped[DUPLICATE] += 1
        else:
            seen.add(whole)
            yield pair


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b("\x00".join(parts).encode(), digest_size=16).digest()
