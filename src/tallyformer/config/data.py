"""The `prepare` section: which texts are read, cleaned, split and tokenised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tallyformer.config.base import Section, Use, where, with_one_of

_WITHOUT_FIELDS = tuple(
    kind + packed for kind in (".txt", ".md") for packed in ("", ".gz", ".xz", ".zst", ".bz2")
)
"""Ends of the names of files that are one text each and have no fields."""

PAIR_FIELDS = ("prompt", "response")
"""The fields of a pair where a recipe names no others."""


def _has_fields(source: Any) -> bool:
    names = (path.lower() for path in source.paths)
    return bool(source.dataset) or any(not name.endswith(_WITHOUT_FIELDS) for name in names)


_OF_DATASET = with_one_of("dataset")
_OF_ROWS = with_one_of("paths", "dataset")
_OF_PAIRS = Use(
    "paths or dataset without messages_field",
    lambda source: bool(source.paths or source.dataset) and not source.messages_field,
)


class _Origin(Section):
    """Where the rows of a source come from: exactly one of `paths`, `dataset`, `corpus`."""

    uses: ClassVar[Mapping[str, Use]] = {
        "dataset_config": _OF_DATASET,
        "dataset_split": _OF_DATASET,
        "data_files": _OF_DATASET,
        "revision": _OF_DATASET,
        "examples": where("corpus", "worked-examples"),
    }
    one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("paths", "dataset", "corpus"),)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Its name in reports and manifests; for texts also the folder of its shards."""
    paths: tuple[str, ...] = ()
    """Files or glob patterns (`**` too): .txt .md .jsonl .ndjson .json .csv .tsv .parquet; all but
    the last may be compressed (.gz .xz .zst .bz2). A .txt or .md file is one text, so pairs are in
    the others."""
    dataset: str | None = None
    """A Hugging Face data set, local folder or hub name, read as a stream (extra `hub`)."""
    dataset_config: str | None = None
    """Its configuration."""
    dataset_split: str = "train"
    """Its split."""
    data_files: tuple[str, ...] = ()
    """Patterns of files in it, all .json, .jsonl, .parquet or .csv, compressed or not, in place of
    `dataset_config`; for data sets with a loading script, for example."""
    revision: str | None = None
    """Its commit, tag or branch on the hub; without it, its newest state."""
    corpus: Literal["primer", "questions", "worked-examples"] | None = None
    """A corpus that ships with the package."""
    examples: int = Field(2000, ge=1)
    """How many worked examples to make."""

    @model_validator(mode="after")
    def _files_or_config(self) -> Self:
        if self.data_files and self.dataset_config:
            raise ValueError(
                f"source {self.name!r} has data_files, which take the place of dataset_config. "
                "Remove one of the two"
            )
        return self


class TextSource(_Origin):
    """One named source of documents."""

    uses: ClassVar[Mapping[str, Use]] = {
        **_Origin.uses,
        "text_field": Use("a dataset, or paths to files that have fields", _has_fields),
    }
    text_field: str = "text"
    """The field that holds the text."""
    max_documents: int | None = Field(None, ge=1)
    """Read at most this many rows."""
    max_bytes: int | None = Field(None, ge=1)
    """The source ends with the document with which its cleaned text reaches this many UTF-8 bytes,
    before deduplication."""
    weight: float | None = Field(None, gt=0)
    """Share of the training tokens, relative to the other sources' weights; for all sources or for
    none. Where none has one, each has as large a share as it has tokens."""


class PrepareSection(Section):
    """Cleaning, exact deduplication, split by document hash, and tokenised shards."""

    uses: ClassVar[Mapping[str, Use]] = {
        "on_invalid_utf8": Use(
            "sources with paths or dataset",
            lambda prepare: any(s.paths or s.dataset for s in prepare.sources),
        )
    }
    sources: tuple[TextSource, ...] = Field(min_length=1)
    """Where the texts are."""
    normalization: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode form."""
    min_chars: int = Field(64, ge=1)
    """Shorter documents are dropped."""
    max_chars: int = Field(10_000_000, ge=1)
    """Longer documents are dropped."""
    on_invalid_utf8: Literal["error", "drop"] = "error"
    """`error` stops; `drop` leaves such rows out and counts them."""
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of documents held out."""
    shard_tokens: int = Field(50_000_000, ge=1024)
    """Most ids of one shard."""
    workers: int = Field(0, ge=0)
    """Processes; 0: one a core. Does not change the result."""

    @model_validator(mode="after")
    def _sources_fit(self) -> PrepareSection:
        names = [s.name for s in self.sources]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"source names must differ; used twice: {', '.join(twice)}")
        unweighted = [s.name for s in self.sources if s.weight is None]
        if unweighted and len(unweighted) < len(self.sources):
            raise ValueError(
                f"weights are for all sources or for none; missing: {', '.join(unweighted)}"
            )
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars {self.min_chars} is above max_chars {self.max_chars}")
        return self


class PairSource(_Origin):
    """One named source of prompt and response pairs, or of conversations.

    A row with a prompt and a response is a pair. Where the recipe names no fields, a row without
    them is a conversation if it has `messages` (role and content) or `conversations` (ShareGPT's
    from and value). In .jsonl a text `chosen` beside one that ends with a question is its answer.
    """

    uses: ClassVar[Mapping[str, Use]] = {
        **_Origin.uses,
        "prompt_field": _OF_PAIRS,
        "response_field": _OF_PAIRS,
        "messages_field": _OF_ROWS,
        "context_fields": _OF_ROWS,
    }
    corpus: Literal["questions", "worked-examples"] | None = None
    """A corpus that ships with the package."""
    prompt_field: str = PAIR_FIELDS[0]
    """The field with the question."""
    response_field: str = PAIR_FIELDS[1]
    """The field with the answer."""
    messages_field: str | None = None
    """A field with conversations, in place of pairs; by default `messages` or `conversations` where
    rows have one and are not pairs."""
    context_fields: tuple[str, ...] = ()
    """Fields whose text (or table: a list of rows), where a row has them, stands before the
    prompt."""
    max_pairs: int | None = Field(None, ge=1)
    """Read at most this many rows."""
    repeat: int = Field(1, ge=1)
    """How often each pair is seen in one epoch."""
