"""Token streams in memory."""

from __future__ import annotations

import numpy as np

from tallyformer.data.shards import Shard, TokenStream

EOT = 1


def stream(name: str, documents: list[list[int]], shards: int = 1) -> TokenStream:
    """A stream of documents, cut into so many shards."""
    parts = np.array_split(np.arange(len(documents)), shards)
    return TokenStream(name, EOT, tuple(_shard(documents, part) for part in parts), ("f",))


def counting(name: str, tokens: int, first: int = 10, every: int = 7) -> TokenStream:
    """One shard of `tokens` ids that count up from `first`, with an end-of-text now and then."""
    ids = np.arange(first, first + tokens)
    ends = np.arange(every - 1, tokens, every)
    ids[ends] = EOT
    starts = np.concatenate([[0], ends[ends < tokens - 1] + 1]).astype(np.uint64)
    rows = np.arange(1, len(starts) + 1, dtype=np.uint64)
    origins = np.stack([np.zeros_like(rows), rows], axis=1)
    return TokenStream(name, EOT, (Shard(ids, starts, origins),), ("f",))


def _shard(documents: list[list[int]], numbers: np.ndarray) -> Shard:
    ids = [[*documents[n], EOT] for n in numbers]
    lengths = np.array([len(i) for i in ids], dtype=np.uint64)
    origins = np.array([(0, n + 1) for n in numbers], dtype=np.uint64).reshape(-1, 2)
    return Shard(np.concatenate(ids).astype(np.uint16), np.cumsum(lengths) - lengths, origins)
