"""What hooks give, checked before a sampler sees it. Loads no torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from tallyformer.errors import InvalidRequestError
from tallyformer.quoting import quoted


def allowed_words(words: Any, banned: Collection[int], vocab_size: int) -> np.ndarray:
    """A mask without banned ids and those that do not exist.

    Args:
        words: what a `TokenMask` gave.
        banned: ids that are taken out.
        vocab_size: ids that have a text.

    Raises:
        InvalidRequestError: too few bits, or nothing may follow.
    """
    bits = np.unpackbits(np.asarray(words, np.uint32).view(np.uint8), bitorder="little")
    if len(bits) < vocab_size:
        raise InvalidRequestError(
            f"token_mask: {len(bits)} bits for {vocab_size} ids. Give uint32 words with one bit "
            "an id"
        )
    bits[vocab_size:] = 0
    bits[list(banned)] = 0
    if not bits.any():
        raise nothing_may_follow("token_mask")
    return np.packbits(bits, bitorder="little").view(np.uint32)


def processed_logits(given: Any, vocab_size: int) -> np.ndarray:
    """Logits (V,), float32, each finite or -inf, of what a `LogitsProcessor` gave.

    Raises:
        InvalidRequestError: it is something else, or every id is left out.
    """
    try:
        with np.errstate(over="ignore"):
            logits_V = np.ascontiguousarray(given, np.float32)
    except (TypeError, ValueError, RuntimeError):
        logits_V = np.empty(0, np.float32)
    if logits_V.shape != (vocab_size,):
        shown = getattr(given, "shape", None)
        found = quoted(given) if shown is None else f"an array of shape {tuple(shown)}"
        raise InvalidRequestError(
            f"logits_processor: {found} for {vocab_size} ids. Return one number an id"
        )
    most = logits_V.max()
    if most == -np.inf:
        raise nothing_may_follow("logits_processor")
    if not np.isfinite(most):
        raise InvalidRequestError(
            f"logits_processor: a logit became {most}. Return numbers, and -inf where an id is "
            "left out"
        )
    return logits_V


def nothing_may_follow(name: str) -> InvalidRequestError:
    """The error where a request leaves no id."""
    return InvalidRequestError(
        f"{name}: no token may follow, as all are banned. Allow the end-of-text at least"
    )
