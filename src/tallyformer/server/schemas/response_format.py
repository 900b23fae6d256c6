"""`response_format`: text, any JSON object, or JSON of a schema."""

from __future__ import annotations

from typing import Any

_FORMS = (
    'must be {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": '
    '{"name": "...", "schema": {...}}}'
)
ANY_OBJECT = {"type": "object"}


def checked_format(given: Any) -> Any:
    """A format as it was given.

    Raises:
        ValueError: it is none.
    """
    wanted_schema(given)
    return given


def wanted_schema(given: Any) -> Any:
    """The schema of a format; None for text.

    In Responses the schema stands beside the type, and for llama.cpp's server a json_object may
    have one.

    Raises:
        ValueError: it is not a format.
    """
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        schema = given.get("schema")
        if schema is None or isinstance(schema, dict):
            return ANY_OBJECT if schema is None else schema
    if kind == "json_schema":
        holder = given.get("json_schema", given)
        schema = holder.get("schema") if isinstance(holder, dict) else None
        if isinstance(schema, dict):
            return schema
    raise ValueError(_FORMS)
