"""A document's identity and its split: functions of its text alone."""

from __future__ import annotations

import hashlib


def content_hash(text: str) -> bytes:
    """128-bit BLAKE2b of a normalised text; equal texts are one document."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def in_validation(digest: bytes, *, fraction: float, seed: int) -> bool:
    """Whether a document belongs to the validation split.

    It depends on the text and the seed alone, so neither order nor other documents matter, and
    equal texts are always on one side.
    """
    keyed = hashlib.blake2b(digest, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(keyed, "little") < fraction * 2**64
