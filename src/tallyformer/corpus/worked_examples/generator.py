"""The two streams of worked examples, which share kinds and phrasings, but no problem of a kind."""

from __future__ import annotations

import decimal
import hashlib
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Literal

from tallyformer.corpus.worked_examples import (
    bonds,
    business,
    currency,
    depreciation,
    interest,
    journal,
    loans,
    ratios,
    returns,
)
from tallyformer.corpus.worked_examples.example import Example, Worked, contains_answer
from tallyformer.corpus.worked_examples.numbers import Draw
from tallyformer.keyed_random import RandomStream

Side = Literal["training", "held-out"]
Kind = Callable[[Draw], Worked]

HELD_OUT_ONE_IN = 10
DIGITS = 100
"""Decimal digits kept between the steps; more than any exact result here needs."""
TRIES_FOR_A_NEW_PROMPT = 200

KINDS: Mapping[str, Kind] = {
    **interest.KINDS,
    **loans.KINDS,
    **ratios.KINDS,
    **returns.KINDS,
    **bonds.KINDS,
    **currency.KINDS,
    **depreciation.KINDS,
    **business.KINDS,
    **journal.KINDS,
}


def worked_examples(count: int, seed: int) -> Iterator[Example]:
    """`count` examples for training, every kind about equally often.

    A longer stream of the same seed starts with the shorter one.
    """
    return _examples(count, seed, "training")


def held_out_examples(count: int, seed: int) -> Iterator[Example]:
    """`count` examples whose numbers no example of their kind in `worked_examples` has.

    Whatever the seeds: a hash of kind and numbers decides which side a problem is on. The sum
    itself may be trained as another kind, a net margin as a return on equity.
    """
    return _examples(count, seed, "held-out")


def _examples(count: int, seed: int, side: Side) -> Iterator[Example]:
    generator = RandomStream("worked examples", side, seed)
    seen: set[str] = set()
    names: list[str] = []
    for _ in range(count):
        if not names:
            names = sorted(KINDS)
            generator.shuffle(names)
        example = _new_example(names.pop(), generator, side, seen)
        seen.add(example.prompt)
        yield example


def _new_example(name: str, generator: RandomStream, side: Side, seen: set[str]) -> Example:
    """An example whose prompt has not been seen, unless there hardly are any left."""
    for _ in range(TRIES_FOR_A_NEW_PROMPT):
        example = _example_on_side(name, generator, side)
        if example.prompt not in seen:
            break
    return example


def _example_on_side(name: str, generator: RandomStream, side: Side) -> Example:
    while True:
        draw = Draw(generator)
        # A context of its own: the caller's precision must not change a text.
        with decimal.localcontext(decimal.Context(prec=DIGITS)):
            worked = KINDS[name](draw)
        digest = _digest(name, draw.values)
        phrasing = generator.below(len(worked.prompts))
        prompt = worked.prompts[phrasing]
        if _side(digest) == side and not contains_answer(prompt, worked.answer):
            return Example(
                id=f"{name}-{digest[:16]}-{phrasing}",
                kind=name,
                prompt=prompt,
                response=worked.response,
                answer=worked.answer,
                values=dict(draw.values),
            )


def _digest(name: str, values: Mapping[str, Decimal | str]) -> str:
    text = "|".join([name, *(f"{key}={value}" for key, value in sorted(values.items()))])
    return hashlib.sha256(text.encode()).hexdigest()


def _side(digest: str) -> Side:
    return "held-out" if int(digest, 16) % HELD_OUT_ONE_IN == 0 else "training"
