"""What all request bodies have in common: null is absent, and what is not known has no effect."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tallyformer.errors import InvalidRequestError

MOST_NESTED = 32
"""Levels of lists and objects in a body."""
MOST_CHOICES = 16
MOST_STOPS = 256


def example(value: dict[str, Any]) -> ConfigDict:
    """The configuration of a body that has an example in the OpenAPI description."""
    return ConfigDict(json_schema_extra={"examples": [value]})


_PLAIN = frozenset({str, int, float, bool, type(None)})
_HOLDERS = frozenset({dict, list})
_BOUNDED = _HOLDERS | {float}
_LONGEST_NAME = 100
Choices = Annotated[int, Field(ge=1, le=MOST_CHOICES)]
Stop = str | Annotated[list[str], Field(max_length=MOST_STOPS)]


class RequestPart(BaseModel):
    """An object in a request."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {name: value for name, value in given.items() if value is not None}
        return given

    def ignored(self) -> list[str]:
        """Names of fields that have no effect, those of objects within included."""
        names = list(self.model_extra or ())
        for name, value in self.__dict__.items():
            # pydantic's classes take long to say what is one of theirs.
            if type(value) not in _PLAIN:
                names += _ignored_in(name, value)
        return names


class RequestBody(RequestPart):
    """A whole body."""

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, given: Any) -> Any:
        """Refuse deep nesting, and numbers without end in any field, known or not."""
        level = [given] if type(given) in _HOLDERS else []
        for _ in range(MOST_NESTED):
            found = [
                inner
                for outer in level
                for inner in (outer.values() if type(outer) is dict else outer)
                if type(inner) in _BOUNDED
            ]
            level = [inner for inner in found if type(inner) is not float]
            if len(level) < len(found) and not all(
                math.isfinite(inner) for inner in found if type(inner) is float
            ):
                raise InvalidRequestError(f"{_endless_in(given)}: it must be a finite number")
            if not level:
                return given
        raise PydanticCustomError("nesting", "lists and objects are nested too deeply")


def _endless_in(given: Any) -> str:
    """The place of a number without end."""
    rest: list[tuple[str, Any]] = [("", given)]
    while rest:
        place, value = rest.pop()
        if type(value) is float and not math.isfinite(value):
            # Unpaired surrogates are none of UTF-8.
            return place.removeprefix(".").encode(errors="backslashreplace").decode()
        if type(value) in _HOLDERS:
            named = value.items() if type(value) is dict else enumerate(value)
            rest += [(f"{place}.{str(name)[:_LONGEST_NAME]}", inner) for name, inner in named]
    raise AssertionError("there is one")


def renamed(error: InvalidRequestError, names: Mapping[str, str]) -> InvalidRequestError:
    """A refusal by the engine, with the client's name of the field that it begins with."""
    field, colon, rest = str(error).partition(":")
    return InvalidRequestError(names.get(field, field) + colon + rest)


def _ignored_in(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, RequestPart):
        yield from (f"{name}.{inner}" for inner in value.ignored())
    elif isinstance(value, list):
        seen: dict[str, None] = {}
        for item in value:
            if isinstance(item, RequestPart):
                seen.update(dict.fromkeys(item.ignored()))
        yield from (f"{name}.{inner}" for inner in seen)
