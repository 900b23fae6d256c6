"""What is a token id, and what is none."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from tallyformer.errors import InvalidIdError
from tallyformer.quoting import quoted


def as_id(value: Any) -> int | None:
    """A whole number of any kind (NumPy's and torch's too) as an int; None for all else.

    True and False are not ids, although Python counts them as numbers.
    """
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # arrays and tensors have errors of their own
        return None


def checked_ids(ids: Iterable[Any], size: int) -> list[int]:
    """Ids as a list of int.

    Raises:
        InvalidIdError: one is not a whole number from 0 to `size - 1`, or `ids` is not a list.
    """
    # Bytes hold numbers and a mapping holds keys, but neither was meant so.
    if isinstance(ids, str | bytes | bytearray | Mapping) or not hasattr(ids, "__iter__"):
        raise InvalidIdError(f"ids: must be a list of token ids; it is {quoted(ids)}")
    try:
        values = list(ids)
    except TypeError:  # an array without a dimension
        raise InvalidIdError("ids: must be a list of token ids; it is one number") from None
    if {*map(type, values)} == {int} and min(values) >= 0 and max(values) < size:
        return values
    return [checked_id(value, size, place) for place, value in enumerate(values)]


def checked_id(value: Any, size: int, place: int | None = None) -> int:
    """One id as an int.

    Raises:
        InvalidIdError: it is not a whole number from 0 to `size - 1`.
    """
    if type(value) is int and 0 <= value < size:
        return value
    token_id = as_id(value)
    if token_id is None or not 0 <= token_id < size:
        where = "" if place is None else f" at place {place}"
        raise InvalidIdError(
            f"ids: {quoted(value)}{where} is not an id of the vocabulary, whose ids go from 0 to "
            f"{size - 1}. Give ids of this tokenizer"
        )
    return token_id
