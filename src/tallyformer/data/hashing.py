"""A document's identity and its split: functions of its text alone."""

from __future__ import annotations

import hashlib

from tallyformer.data.normalize import normalize


def content_hash(text: str) -> bytes:
    """128-bit BLAKE2b of a normalised text; equal texts are one document."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def in_validation(digest: bytes, *, fraction: float, seed: int) -> bool:
    """Whether a document belongs to the validation split.

    It depends on the text and the seed alone, so neither order nor other documents matter, and
    equal texts are always on one side.
    """
    return split_number_of_document(digest, seed) < fraction * 2**64


def split_number_of_document(digest: bytes, seed: int) -> int:
    """Where a document stands in [0, 2**64); below a fraction of that it is held out."""
    keyed = hashlib.blake2b(digest, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(keyed, "little")


def prompt_in_validation(prompt: str, *, fraction: float, seed: int) -> bool:
    """Whether a prompt belongs to the validation split.

    It depends on the prompt and the seed alone. Prompts that differ in case and white space only
    are on one side, and what is held out at a fraction is held out at every larger one.
    """
    return split_number(plain_text(prompt), seed) < fraction * 2**64


def plain_text(text: str) -> str:
    """A text without case and with single spaces: what counts as equal in the split of pairs."""
    return " ".join(normalize(text, "NFC").casefold().split())


def split_number(plain: str, seed: int) -> int:
    """Where a plain text stands in [0, 2**64); below a fraction of that it is held out."""
    digest = hashlib.blake2b(f"{seed}\0{plain}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little")
