"""The values of a config.json, each checked as it is read, without transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallyformer.quoting import quoted

_LARGEST = 3e38
"""About the largest float32 number."""


class UnsupportedModelError(ValueError):
    """A model that only transformers can compute; the message is the reason in a few words."""


class Fields:
    """Values by name. What is not of its type raises `UnsupportedModelError`.

    A name without a value takes the default of the one who asks, as in transformers, where a
    saved configuration may leave out what equals its default.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def size(
        self, name: str, default: int | None = None, *, instead_of_null: int | None = None
    ) -> int:
        """A whole number >= 1."""
        value = self.values.get(name, default)
        value = instead_of_null if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UnsupportedModelError(f"{name}: {quoted(value)} is not a size")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise UnsupportedModelError(f"{name}: {quoted(value)} is not true or false")
        return value

    def choice(self, name: str, default: str, known: Mapping[str, str]) -> str:
        """One of the names that `known` holds, as what it stands for there."""
        value = self.values.get(name, default)
        if not isinstance(value, str) or value not in known:
            raise UnsupportedModelError(f"{name}: {quoted(value)} is not one of {', '.join(known)}")
        return known[value]

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number >= 0."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnsupportedModelError(f"{name}: {quoted(value)} is not a number")
        if not 0 <= value <= _LARGEST:
            raise UnsupportedModelError(f"{name}: {quoted(value)} is out of range")
        return float(value)

    def positive(self, name: str) -> float:
        """A finite number > 0."""
        value = self.number(name)
        if value == 0:
            raise UnsupportedModelError(f"{name}: 0 is out of range")
        return value

    def optional(self, name: str) -> float | None:
        """A finite number >= 0, or None where there is none."""
        return None if self.values.get(name) is None else self.number(name)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Names and values; none at all where there is nothing."""
        value = self.values.get(name)
        if not isinstance(value, dict | None):
            raise UnsupportedModelError(f"{name}: {quoted(value)} is not names and values")
        return value or {}

    def ids(self, name: str, default: int) -> tuple[int, ...]:
        """An id, several of them, or none."""
        value = self.values.get(name, default)
        several = value if isinstance(value, list) else [] if value is None else [value]
        for one in several:
            if isinstance(one, bool) or not isinstance(one, int) or one < 0:
                raise UnsupportedModelError(f"{name}: {one!r} is not a token id")
        return tuple(several)
