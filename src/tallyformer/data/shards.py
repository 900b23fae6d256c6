"""Token shards on disk, and reading them back as one long stream a source.

    prepare/
      train/<source>/00000.bin    ids, uint16 or uint32, little-endian: doc eot doc eot ...
      train/<source>/00000.idx    where each document starts in the .bin, in ids, uint64
      train/<source>/00000.src    (file number, row) of each document, uint64 (n, 2)
      validation/<source>/...
      files.json                  names of the input files by source
      manifest.json               sizes, checksums, counts; written last

Shards of a source are read as one stream; a sequence may reach from one into the next.

N sequences asked for, L ids of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tallyformer.artifacts.json_files import read_json
from tallyformer.artifacts.manifest import Manifest, check_files, read_manifest
from tallyformer.data.documents import document_id
from tallyformer.errors import ArtifactError

SPLITS = ("train", "validation")
FILES = "files.json"


def id_type(vocab_size: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


@dataclass(frozen=True)
class Shard:
    """One shard's memory-mapped arrays."""

    tokens: np.ndarray
    starts: np.ndarray
    origins: np.ndarray


@dataclass(frozen=True)
class TokenStream:
    """One source's tokens of one split, as if its shards were one file.

    Attributes:
        source: the source's name.
        eot_id: the id between documents.
        shards: in order.
        files: names of the source's input files, by file number.
    """

    source: str
    eot_id: int
    shards: tuple[Shard, ...]
    files: tuple[str, ...] = ()
    ends: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = [len(shard.tokens) for shard in self.shards]
        object.__setattr__(self, "ends", np.cumsum(sizes, dtype=np.int64))

    @property
    def tokens(self) -> int:
        """Ids in the stream, end-of-text included."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def gather(self, starts_N: np.ndarray, length: int) -> np.ndarray:
        """Copy sequences of `length` ids; int64 (N, L). Each must lie within the stream."""
        out_NL = np.empty((len(starts_N), length), dtype=np.int64)
        shards = np.searchsorted(self.ends, starts_N, side="right")
        for row, (number, start) in enumerate(
            zip(shards.tolist(), np.asarray(starts_N).tolist(), strict=True)
        ):
            tokens = self.shards[number].tokens
            inside = start - int(self.ends[number]) + len(tokens)
            piece = tokens[inside : inside + length]
            out_NL[row, : len(piece)] = piece
            if len(piece) < length:
                self._across(out_NL[row], len(piece), number + 1)
        return out_NL

    def documents(self, start: int, length: int) -> list[str]:
        """Names of the documents that have an id in [start, start + length)."""
        names: list[str] = []
        begin = 0
        for shard, end in zip(self.shards, self.ends.tolist(), strict=True):
            low, high = max(start, begin) - begin, min(start + length, end) - begin
            if low < high:
                first = int(np.searchsorted(shard.starts, low, side="right")) - 1
                last = int(np.searchsorted(shard.starts, high, side="left"))
                names += [self._name(*row) for row in shard.origins[first:last].tolist()]
            begin = end
        return names

    def first_ids(self, most: int) -> Iterator[np.ndarray]:
        """The first ids of each document, at most this many, without its end-of-text."""
        for shard in self.shards:
            ends = [*shard.starts.tolist()[1:], len(shard.tokens)]
            for start, end in zip(shard.starts.tolist(), ends, strict=True):
                yield np.asarray(shard.tokens[start : min(start + most, end - 1)])

    def _across(self, out: np.ndarray, filled: int, number: int) -> None:
        while filled < len(out):
            piece = self.shards[number].tokens[: len(out) - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            number += 1

    def _name(self, file: int, row: int) -> str:
        name = self.files[file] if file < len(self.files) else f"file {file}"
        return f"{self.source}/{document_id(name, row)}"


@dataclass(frozen=True)
class Shards:
    """Everything that `prepare` wrote, opened for training.

    Attributes:
        train, validation: streams by source, in the recipe's order.
        weights: the sources' weights in the recipe, or None for natural proportions.
        manifest: what `prepare` recorded.
    """

    train: Mapping[str, TokenStream]
    validation: Mapping[str, TokenStream]
    weights: Mapping[str, float] | None
    manifest: Manifest


def read_shards(
    folder: Path, *, tokenizer_fingerprint: str, made_by: str, check: bool = True
) -> Shards:
    """Open the shards of a finished `prepare`.

    Args:
        folder: the stage's folder.
        tokenizer_fingerprint: of the tokenizer that the model is trained with.
        made_by: the command that makes the folder, named in errors.
        check: compare checksums, not only sizes.

    Raises:
        ArtifactError: it is not finished, a file is truncated or altered, or it was tokenised
            with another tokenizer.
    """
    manifest = read_manifest(folder, made_by=made_by)
    check_files(folder, manifest, made_by=made_by, contents=check)
    if manifest.inputs.get("tokenizer") != tokenizer_fingerprint:
        raise ArtifactError(
            f"{folder}: tokenised with another tokenizer than the model's. "
            f"Delete {folder} and make it again: {made_by}"
        )
    sources = manifest.config["sources"]
    names = read_json(folder / FILES, fix=f"Delete {folder} and make it again: {made_by}")
    train, validation = (
        {s["name"]: _open_stream(folder, split, s["name"], manifest, names) for s in sources}
        for split in SPLITS
    )
    weights = {s["name"]: s["weight"] for s in sources if s["weight"] is not None}
    return Shards(train, validation, weights or None, manifest)


def _open_stream(
    folder: Path, split: str, source: str, manifest: Manifest, names: Mapping[str, list[str]]
) -> TokenStream:
    prefix = f"{split}/{source}/"
    stems = sorted(n[:-4] for n in manifest.files if n.startswith(prefix) and n.endswith(".bin"))
    dtype = np.dtype(manifest.metrics["dtype"])
    shards = tuple(_open_shard(folder / stem, dtype) for stem in stems)
    return TokenStream(source, int(manifest.metrics["eot_id"]), shards, tuple(names[source]))


def _open_shard(stem: Path, dtype: np.dtype[Any]) -> Shard:
    def mapped(suffix: str, kind: np.dtype[Any]) -> np.ndarray:
        # A plain view of the map: slicing the memmap class itself costs ten times as much.
        return np.asarray(np.memmap(stem.with_name(stem.name + suffix), dtype=kind, mode="r"))

    u8 = np.dtype("<u8")
    return Shard(mapped(".bin", dtype), mapped(".idx", u8), mapped(".src", u8).reshape(-1, 2))
