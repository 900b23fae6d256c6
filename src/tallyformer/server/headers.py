"""The headers of a request, as the server gave them: every layer asks for one or two."""

from __future__ import annotations

from starlette.types import Scope


def values(scope: Scope, name: bytes) -> list[str]:
    """All headers of this lower-case name; servers give names in lower case, as ASGI demands."""
    return [value.decode("latin-1") for known, value in scope["headers"] if known == name]


def value(scope: Scope, name: bytes) -> str | None:
    """The first header of this lower-case name; None where there is none."""
    for known, found in scope["headers"]:
        if known == name:
            text: str = found.decode("latin-1")
            return text
    return None
