"""The base class of every recipe section, and when a key of it does something.

A key that does nothing in the way a section is used (`div` of a cosine schedule) is an error where
it is given, and is left out where the section is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
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
