"""What a run is too small for, or reads twice, said before it begins, with what would help.

Nothing here is an error: a recipe may be tried on ten lines. But a model that was trained for six
steps, or measured on three pairs, tells nothing, and its user should know before it is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tallyformer.config.training import TrainSection
from tallyformer.evaluation.statistics import ENOUGH
from tallyformer.report.run_card import LITTLE_TEXT

LEAST_STEPS = 50
"""Optimizer steps below which a training has hardly begun, whatever it starts from."""
PARAMETERS_PER_TOKEN = 50
"""More parameters than this for a token of text, and a model memorizes its text."""
LEAST_TOKENS = 20_000
"""Of text, however small the model."""
LEAST_PAIRS = 200
"""Training pairs below which a model repeats them rather than answers other questions."""
BYTES_PER_ID = 50
"""Bytes of text for each id of a learnt vocabulary below which most ids are hardly ever seen."""
BYTES_PER_TOKEN = 3.5
"""Of English in a vocabulary of some thousand ids."""
_MOST_HELD_OUT = 0.5
"""The largest share of the data that is ever advised to be held out."""


@dataclass(frozen=True)
class Advice:
    """One warning.

    Attributes:
        stage: the stage that it is about.
        text: what is too small or wrong, and what would be enough or right.
    """

    stage: str
    text: str


@dataclass(frozen=True)
class TrainingSize:
    """A call of the training loop: its stage, its section's place in the recipe, its steps."""

    stage: str
    key: str
    section: TrainSection
    steps: int


@dataclass(frozen=True, kw_only=True)
class RunSize:
    """What a run will read and do, as far as it is known before it begins; None where it is not.

    Attributes:
        parameters: of the model.
        learnt_ids: ids of a vocabulary that is learnt from the texts; None for a ready one.
        tokens, validation_tokens: of text, by split.
        text_fraction: share of the text that is held out.
        trainings: those whose number of steps is known.
        pairs, held_out_pairs: for fine-tuning, by split.
        pair_fraction: share of the pairs that is held out.
        read_twice: files that are read as text and as pairs.
    """

    parameters: int
    learnt_ids: int | None = None
    tokens: int | None = None
    validation_tokens: int | None = None
    text_fraction: float = 0.1
    trainings: Sequence[TrainingSize] = ()
    pairs: int | None = None
    held_out_pairs: int | None = None
    pair_fraction: float = 0.1
    read_twice: Sequence[str] = ()


def advice_on(size: RunSize) -> list[Advice]:
    """Everything that is too small, in the order of the stages."""
    return [
        *_on_vocabulary(size),
        *_on_texts(size),
        *(advice for training in size.trainings for advice in _on_steps(training)),
        *_on_pairs(size),
        *_on_what_is_read_twice(size),
    ]


def _on_vocabulary(size: RunSize) -> Iterator[Advice]:
    if size.tokens is None or size.learnt_ids is None:
        return
    text_bytes = (size.tokens + (size.validation_tokens or 0)) * BYTES_PER_TOKEN
    if text_bytes < BYTES_PER_ID * size.learnt_ids:
        fits = max(512, round(text_bytes / BYTES_PER_ID / 256) * 256)
        yield Advice(
            "tokenizer",
            f"{size.learnt_ids:,} ids are learnt from about {_megabytes(text_bytes)} of text, "
            f"which shows most of them a few times only. tokenizer.vocab_size={fits} would fit",
        )


def _on_texts(size: RunSize) -> Iterator[Advice]:
    if size.tokens is None:
        return
    enough = max(LEAST_TOKENS, size.parameters // PARAMETERS_PER_TOKEN)
    if size.tokens < enough:
        yield Advice(
            "pretrain",
            f"the texts hold about {size.tokens:,} tokens to train on, and the model has "
            f"{size.parameters:,} parameters: it will memorize them rather than learn to "
            f"write. At least {enough:,} tokens ({_megabytes(enough * BYTES_PER_TOKEN)} of text) "
            "would be enough, or a smaller model",
        )
    held_out = size.validation_tokens
    if held_out is not None and held_out < LITTLE_TEXT:
        yield Advice(
            "prepare",
            f"about {held_out:,} tokens of text are held out, so perplexities are rough figures. "
            + _more_held_out(
                "prepare.validation_fraction",
                LITTLE_TEXT,
                size.tokens + held_out,
                f"{LITTLE_TEXT:,} tokens",
                f"{_megabytes(LITTLE_TEXT / size.text_fraction * BYTES_PER_TOKEN)} of text",
            ),
        )


def _on_steps(training: TrainingSize) -> Iterator[Advice]:
    if training.steps >= LEAST_STEPS:
        return
    section, key = training.section, training.key
    if section.epochs is None:
        fix = f"{key}.steps={LEAST_STEPS} or more would be enough"
    else:
        epochs = math.ceil(section.epochs * LEAST_STEPS / training.steps)
        smaller = " (or fewer with a smaller micro_batch)" if section.micro_batch > 1 else ""
        fix = f"{key}.epochs={epochs}{smaller} would be enough"
    many = "1 step" if training.steps == 1 else f"{training.steps} steps"
    yield Advice(
        training.stage, f"{key} trains for about {many}, which is too few to learn much. {fix}"
    )


def _on_pairs(size: RunSize) -> Iterator[Advice]:
    if size.pairs is None or size.held_out_pairs is None:
        return
    if size.pairs < LEAST_PAIRS:
        yield Advice(
            "sft",
            f"{size.pairs} pairs are few to train on: the model will repeat their answers rather "
            f"than find others. At least {LEAST_PAIRS} would be enough for a first impression",
        )
    if size.held_out_pairs < ENOUGH:
        yield Advice(
            "sft",
            f"{size.held_out_pairs} pairs are held out, too few to tell whether fine-tuning "
            "helps. "
            + _more_held_out(
                "sft.validation_fraction",
                ENOUGH,
                size.pairs + size.held_out_pairs,
                f"{ENOUGH} pairs",
                f"{math.ceil(ENOUGH / size.pair_fraction)} pairs",
            ),
        )


def _on_what_is_read_twice(size: RunSize) -> Iterator[Advice]:
    if size.read_twice:
        first, more = size.read_twice[0], len(size.read_twice) - 1
        others = f" and {more} more file{'s' if more > 1 else ''}" if more else ""
        yield Advice(
            "sft",
            f"{first}{others}: read as text and as pairs, so "
            "pairs that are held out are trained on as text, and their perplexity is too good. "
            f"Take {'them' if more else 'it'} out of prepare.sources or of sft.sources",
        )


def _more_held_out(key: str, wanted: int, there: int, unit: str, more: str) -> str:
    """How to hold out as much as is wanted: a larger share of the data, or more data."""
    # A tenth more, as the split follows hashes and not a count.
    share = math.ceil(110 * wanted / max(1, there)) / 100
    larger = f"{key}={share:g} would hold out {unit}" if share <= _MOST_HELD_OUT else ""
    return (
        f"{larger}, or {more} in all" if larger else f"{more[:1].upper()}{more[1:]} in all would do"
    )


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{max(1, round(size / 1e3))} kB"
