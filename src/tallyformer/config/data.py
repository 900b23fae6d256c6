"""The `prepare` section: which texts are read, cleaned, split and tokenised."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from tallyformer.config.base import Section

_ONLY_FOR = {
    "dataset_config": ("dataset",),
    "dataset_split": ("dataset",),
    "data_files": ("dataset",),
    "revision": ("dataset",),
    "examples": ("corpus: worked-examples",),
    "text_field": ("paths", "dataset"),
    "prompt_field": ("paths", "dataset"),
    "response_field": ("paths", "dataset"),
    "context_fields": ("paths", "dataset"),
}
"""Keys that mean something for some origins of rows alone."""


class _Origin(BaseModel):
    """Where the rows of a source come from: exactly one of `paths`, `dataset`, `corpus`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    paths: tuple[str, ...] = ()
    """Files or glob patterns: .txt .md .jsonl .jsonl.gz .jsonl.xz .jsonl.zst .parquet .csv."""
    dataset: str | None = None
    """A Hugging Face data set, local folder or hub name, read as a stream."""
    dataset_config: str | None = None
    dataset_split: str = "train"
    data_files: tuple[str, ...] = ()
    """Patterns of files in the data set, all of one kind, where its own settings are not wanted."""
    revision: str | None = None
    """Commit, tag or branch of a hub data set; by default its newest state."""
    corpus: Literal["primer", "questions", "worked-examples"] | None = None
    """A corpus that ships with the package."""
    examples: int = Field(2000, ge=1)
    """How many worked examples to make; used by `corpus: worked-examples` alone."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [n for n in ("paths", "dataset", "corpus") if getattr(self, n)]
        if len(given) != 1:
            raise ValueError(
                f"source {self.name!r} needs exactly one of paths, dataset, corpus; "
                f"it has {', '.join(given) or 'none'}"
            )
        origins = {*given, f"corpus: {self.corpus}"}
        ignored = [
            f"{name} is for {' or '.join(_ONLY_FOR[name])}"
            for name, field in type(self).model_fields.items()
            if name in _ONLY_FOR
            and not origins & set(_ONLY_FOR[name])
            # The full recipe of a run names every key, also those that have their default.
            and getattr(self, name) != field.default
        ]
        if ignored:
            raise ValueError(
                f"source {self.name!r} has {given[0]}, and {', '.join(ignored)}. Remove what "
                "does not apply"
            )
        if self.data_files and self.dataset_config:
            raise ValueError(
                f"source {self.name!r} has data_files, which take the place of dataset_config. "
                "Remove one of the two"
            )
        return self


class TextSource(_Origin, Section):
    """One named source of documents."""

    text_field: str = "text"
    max_documents: int | None = Field(None, ge=1)
    max_bytes: int | None = Field(None, ge=1)
    """The source ends with the document with which its cleaned text reaches so many UTF-8 bytes,
    before deduplication."""
    weight: float | None = Field(None, gt=0)
    """Share of the training tokens, relative to the other sources' weights. Where no source has
    one, each has as large a share as it has tokens; so all have a weight, or none."""


class PrepareSection(Section):
    """Cleaning, exact deduplication, split by document hash, and tokenised shards."""

    sources: tuple[TextSource, ...] = Field(min_length=1)
    normalization: Literal["NFC", "NFKC", "none"] = "NFC"
    min_chars: int = Field(64, ge=1)
    max_chars: int = Field(10_000_000, ge=1)
    on_invalid_utf8: Literal["error", "drop"] = "error"
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    shard_tokens: int = Field(50_000_000, ge=1024)
    workers: int = Field(0, ge=0)
    """Processes; 0 means one a core. The shards' bytes do not depend on it."""

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


class PairSource(_Origin, Section):
    """One named source of prompt and response pairs.

    Where `context_fields` are given and present in a row, their text (or table, a list of rows)
    stands before the prompt.
    """

    corpus: Literal["questions", "worked-examples"] | None = None
    prompt_field: str = "prompt"
    response_field: str = "response"
    context_fields: tuple[str, ...] = ()
    max_pairs: int | None = Field(None, ge=1)
    repeat: int = Field(1, ge=1)
    """How often each pair is seen in one epoch."""
