"""The vocabulary and the number of tokens that a run will have, where that is soon found out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.config.data import TextSource
from tallyformer.data.cleaning import Cleaning
from tallyformer.data.passages import Document, SplitSource
from tallyformer.data.prepare import nothing_kept
from tallyformer.data.sample import training_sample
from tallyformer.data.sources import RowSource, text_source
from tallyformer.tokenizer import Tokenizer

SMALL_BYTES = 4_000_000
"""Text of all sources together that is read whole, which takes some seconds."""
_SMALL_ROWS = 20_000
_UNPACKED = 10
"""A compressed file may hold this many times its size."""


@dataclass(frozen=True)
class SourceSize:
    """A text source's size.

    Attributes:
        documents, tokens: of the training split; None if unknown.
        validation_tokens: of the other one.
    """

    name: str
    documents: int | None
    tokens: int | None
    validation_tokens: int | None


@dataclass(frozen=True)
class Foreseen:
    """What is known before training.

    Attributes:
        tokenizer: the run's; None if it is not known yet.
        sources: sizes of the text sources, at most; a source's are None if they are not known yet.
    """

    tokenizer: Tokenizer | None
    sources: list[SourceSize]


def finished_inputs(folder: RunFolder) -> Foreseen:
    """What the finished stages `tokenizer` and `prepare` say."""
    tokenizer = Tokenizer.from_pretrained(folder.stage("tokenizer"))
    return Foreseen(tokenizer, prepared_sizes(folder))


def prepared_sizes(folder: RunFolder) -> list[SourceSize]:
    """What the finished stage `prepare` counted."""
    return [
        SourceSize(
            name,
            counts["documents"]["train"],
            counts["tokens"]["train"],
            counts["tokens"]["validation"],
        )
        for name, counts in folder.manifest("prepare").metrics["sources"].items()
    ]


def foresee(recipe: Recipe) -> Foreseen:
    """Find out as much as a few seconds allow, in memory.

    A vocabulary is loaded, or learnt where the text is small; texts are counted where both they
    and the vocabulary are there.

    Raises:
        TokenizerError: the tokenizer is missing, or the text does not support the vocabulary.
        DataError: a source cannot be used, or nothing of it is left.
    """
    sections = recipe.prepare.sources
    sources = [_reader(recipe, section) for section in sections]
    small = [_is_small(source) for source in sources]
    cleaning = Cleaning.of(recipe.prepare, recipe.seed)
    section = recipe.tokenizer
    tokenizer: Tokenizer | None = None
    if section.kind == "pretrained":
        place = recipe.locate(section.source, section.revision)
        tokenizer = Tokenizer.from_pretrained(place, section.revision)
    elif all(small):
        sample = training_sample(sources, sections, cleaning, section.train_bytes)
        tokenizer = Tokenizer.train(sample, section.vocab_size)
    seen: set[bytes] = set()
    return Foreseen(
        tokenizer,
        [
            _counted(source, limits, cleaning, tokenizer, seen)
            if is_small and tokenizer
            else SourceSize(source.name, None, None, None)
            for source, limits, is_small in zip(sources, sections, small, strict=True)
        ],
    )


def _reader(recipe: Recipe, section: TextSource) -> RowSource:
    most = recipe.prepare.max_chars
    return text_source(section, data_root=recipe.data_root, seed=recipe.seed, max_chars=most)


def _is_small(source: RowSource) -> bool:
    if source.sizes is None:
        return False
    if source.unit == "rows":
        return sum(source.sizes) <= _SMALL_ROWS
    plain = (".txt", ".md", ".jsonl", ".csv")
    parts = zip(source.files, source.sizes, strict=True)
    read = sum(size if Path(name).suffix in plain else size * _UNPACKED for name, size in parts)
    return read <= SMALL_BYTES


def _counted(
    source: RowSource,
    limits: TextSource,
    cleaning: Cleaning,
    tokenizer: Tokenizer,
    seen: set[bytes],
) -> SourceSize:
    """As `prepare` will count; what a source that is not read whole repeats is not known."""
    documents: Counter[bool] = Counter()
    tokens: Counter[bool] = Counter()
    dropped: Counter[str] = Counter()
    for _, text, digest, held_out in _documents(source, limits, cleaning, dropped):
        if digest in seen:
            dropped["duplicate"] += 1
            continue
        seen.add(digest)
        documents[held_out] += 1
        tokens[held_out] += len(tokenizer.encode_to_numpy(text)) + 1  # the end of the text
    if not documents:
        raise nothing_kept(source.name, dropped.total(), dropped)
    return SourceSize(source.name, documents[False], tokens[False], tokens[True])


def _documents(
    source: RowSource, limits: TextSource, cleaning: Cleaning, dropped: Counter[str]
) -> Iterator[Document]:
    left = limits.max_bytes
    rows = islice(source.rows(), limits.max_documents)
    split = SplitSource.of(source, limits, cleaning)
    for document in split.documents(rows, source.files, source.required[0], dropped):
        yield document
        if left is not None:
            left -= len(document.text.encode())
            if left <= 0:
                return
