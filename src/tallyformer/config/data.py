"""The `prepare` section: which texts are read, cleaned, split and tokenised."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tallyformer.config.base import Section


class TextSource(Section):
    """One named source of documents. Exactly one of `paths`, `dataset`, `corpus` is given."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    paths: tuple[str, ...] = ()
    """Files or glob patterns: .txt .md .jsonl .jsonl.gz .jsonl.xz .jsonl.zst .parquet .csv."""
    dataset: str | None = None
    """A Hugging Face data set, local folder or hub name, read as a stream."""
    dataset_config: str | None = None
    dataset_split: str = "train"
    corpus: Literal["primer", "questions", "worked-examples"] | None = None
    """A corpus that ships with the package."""
    examples: int = Field(2000, ge=1)
    """How many worked examples to make; used by `corpus: worked-examples` alone."""
    text_field: str = "text"
    max_documents: int | None = Field(None, ge=1)
    weight: float | None = Field(None, gt=0)
    """Share of the training tokens, relative to the other sources' weights. Where no source has
    one, each has as large a share as it has tokens; so all have a weight, or none."""

    @model_validator(mode="after")
    def _one_origin(self) -> TextSource:
        given = [n for n in ("paths", "dataset", "corpus") if getattr(self, n)]
        if len(given) != 1:
            raise ValueError(
                f"source {self.name!r} needs exactly one of paths, dataset, corpus; "
                f"it has {', '.join(given) or 'none'}"
            )
        return self


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


class PairSource(Section):
    """One named source of prompt and response pairs. Exactly one of `paths`, `dataset`, `corpus`.

    Where `context_fields` are given and present in a row, their text (or table, a list of rows)
    stands before the prompt.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    paths: tuple[str, ...] = ()
    dataset: str | None = None
    dataset_config: str | None = None
    dataset_split: str = "train"
    corpus: Literal["questions", "worked-examples"] | None = None
    examples: int = Field(2000, ge=1)
    prompt_field: str = "prompt"
    response_field: str = "response"
    context_fields: tuple[str, ...] = ()
    max_pairs: int | None = Field(None, ge=1)
    repeat: int = Field(1, ge=1)
    """How often each pair is seen in one epoch."""

    @model_validator(mode="after")
    def _one_origin(self) -> PairSource:
        given = [n for n in ("paths", "dataset", "corpus") if getattr(self, n)]
        if len(given) != 1:
            raise ValueError(
                f"source {self.name!r} needs exactly one of paths, dataset, corpus; "
                f"it has {', '.join(given) or 'none'}"
            )
        return self
