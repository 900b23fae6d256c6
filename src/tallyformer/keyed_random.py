"""Random numbers and orders that depend on their key alone: counter-based, one formula, no state.

NumPy's and Python's generators may give other numbers in another version. These never do: a key
is hashed to 64 bits (BLAKE2b), and number i of its stream is splitmix64's output function of
key + (i + 1) * GOLDEN, all modulo 2**64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
number generators"). That function is a bijection, so the numbers of one stream all differ.

For the order of data, for examples and for draws of tokens; not for secrets.

N numbers of a stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableSequence
from typing import Any

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = 2**64 - 1


def key_of(*parts: int | str) -> int:
    """64 bits that stand for a key, such as a seed, an epoch and what the numbers are for."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def random_numbers(size: int, *key: int | str) -> np.ndarray:
    """The first `size` numbers of a key's stream, uint64 (N,); no two are equal."""
    return _numbers(key_of(*key), 0, size)


def uniforms_at(key: int, first: int, size: int) -> list[float]:
    """What `uniform_at` gives for `size` indices from `first` on; many of them are quicker so."""
    numbers_N = _numbers(key, first, size)
    return ((numbers_N >> np.uint64(11)) * 2.0**-53).tolist()  # type: ignore[no-any-return]


def _numbers(key: int, first: int, size: int) -> np.ndarray:
    numbers_N = np.arange(first + 1, first + size + 1, dtype=np.uint64)
    numbers_N *= np.uint64(GOLDEN)
    numbers_N += np.uint64(key)
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        numbers_N ^= numbers_N >> np.uint64(shift)
        numbers_N *= np.uint64(factor)
    numbers_N ^= numbers_N >> np.uint64(31)
    return numbers_N


def uniform_at(key: int, index: int) -> float:
    """Number `index` of a key's stream, counted from 0, as a number in [0, 1): its first 53 bits.

    Args:
        key: 64 bits, see `key_of`.
        index: 0 or more.
    """
    return (_mixed(key + (index + 1) * GOLDEN & _MASK) >> 11) * 2.0**-53


def permutation(size: int, *key: int | str) -> np.ndarray:
    """0 to `size` - 1 in the key's order, int64 (N,).

    Each place is written into the low bits of its random number: sorting plain numbers is several
    times as fast as sorting places by their numbers. Where the high bits are equal, which hardly
    happens, the lower place comes first.
    """
    low = np.uint64((1 << max(size - 1, 0).bit_length()) - 1)
    numbers_N = random_numbers(size, *key)
    numbers_N &= ~low
    numbers_N |= np.arange(size, dtype=np.uint64)
    numbers_N.sort()
    numbers_N &= low
    return numbers_N.astype(np.int64)


class RandomStream:
    """The numbers of a key's stream, one after another."""

    def __init__(self, *key: int | str) -> None:
        self._state = key_of(*key)

    def below(self, limit: int) -> int:
        """One of 0 to `limit` - 1, each as likely but for at most limit / 2**64.

        Args:
            limit: 1 to 2**63.
        """
        if not 1 <= limit <= 2**63:
            raise ValueError(f"limit {limit} is not 1 to 2**63")
        return self._next() * limit >> 64

    def shuffle(self, items: MutableSequence[Any]) -> None:
        """Bring items into a random order (Fisher and Yates)."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def _next(self) -> int:
        self._state = (self._state + GOLDEN) & _MASK
        return _mixed(self._state)


def _mixed(number: int) -> int:
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        number = (number ^ number >> shift) * factor & _MASK
    return number ^ number >> 31
