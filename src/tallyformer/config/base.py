"""The base class of every recipe section, and when a key of it does something.

A key that does nothing in the way a section is used (`div` of a cosine schedule) is an error where
it is given, and is left out where the section is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)


@dataclass(frozen=True)
class Use:
    """When a key does something.

    Attributes:
        words: what the key is for, as in "div is for name: onecycle".
        applies: whether it does something in a section.
    """

    words: str
    applies: Callable[[Any], bool]


def where(key: str, *values: str) -> Use:
    """For sections whose `key` has one of these values."""
    return Use(f"{key}: {' or '.join(values)}", lambda section: getattr(section, key) in values)


def with_one_of(*keys: str) -> Use:
    """For sections in which one of these keys is given."""
    return Use(" or ".join(keys), lambda section: any(getattr(section, key) for key in keys))


class Section(BaseModel):
    """A frozen recipe section. An unknown key is an error, and so is an infinite number."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )
    uses: ClassVar[Mapping[str, Use]] = {}
    """Keys that do something in some cases alone; `section.key` for one of a section below."""
    one_of: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Groups of keys that exclude one another; exactly one of each is given."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts true as 1, a recipe does not."""
        kinds = _scalars(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError(f"{str(value).lower()} is not a number")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_text_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic reads '100' as a number, and 'yes' or 1 as true; a recipe says what it means."""
        kinds = _scalars(cls.model_fields[str(info.field_name)].annotation, of_items=True)
        if kinds & {int, float} and str not in kinds:
            for text in _texts(value):
                if _is_number(text):
                    raise ValueError(f"{text!r} is a text: write the number without quotes")
        if bool in kinds and not kinds & {int, float, str} and not isinstance(value, bool | None):
            raise ValueError("must be true or false")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _text_that_can_be_written(cls, value: Any) -> Any:
        if any("\0" in text or _lone_surrogate(text) for text in _texts(value)):
            raise ValueError("has a character that no file or path can hold (NUL, or half of one)")
        return value

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for keys in self.one_of:
            given = [key for key in keys if getattr(self, key)]
            if len(given) != 1:
                listed = " and ".join([", ".join(keys[:-1]), keys[-1]])
                raise ValueError(
                    f"give exactly one of {listed}; given are: {', '.join(given) or 'none'}"
                )
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        ignored = [key for key in self._unused() if self._is_given(key)]
        if ignored:
            listed = "; ".join(f"{key} is for {self.uses[key].words}" for key in ignored)
            raise ValueError(
                f"{listed}. It would do nothing here. Remove it (--set KEY=null takes a key out)"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        for key in self._unused():
            *parents, last = key.split(".")
            within: Any = values
            for name in parents:
                within = within.get(name) or {}
            within.pop(last, None)
        return values

    def _unused(self) -> list[str]:
        return [key for key, use in self.uses.items() if not use.applies(self)]

    def _is_given(self, key: str) -> bool:
        *parents, last = key.split(".")
        section: Section | None = self
        for name in parents:
            section = getattr(section, name) if section else None
        return (
            section is not None
            and last in section.model_fields_set
            and getattr(section, last) is not None
        )


def _scalars(annotation: Any, *, of_items: bool = False) -> set[Any]:
    """The types that a value may have itself, or with `of_items` its items instead of a list."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _scalars(parts[0], of_items=of_items)
    if origin in (Union, UnionType) or (of_items and origin in (tuple, list)):
        return set().union(*(_scalars(part, of_items=of_items) for part in parts))
    if of_items and parts and origin is dict:
        return _scalars(parts[1], of_items=True)
    return {str} if origin is Literal else {annotation}


def _texts(value: Any) -> Iterator[str]:
    """A text, or those in a list or among the values of a mapping."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (item for item in value.values() if isinstance(item, str))
    elif isinstance(value, list | tuple):
        yield from (item for item in value if isinstance(item, str))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _lone_surrogate(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)
