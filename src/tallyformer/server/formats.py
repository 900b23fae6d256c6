"""The form that an answer must have: JSON, or JSON of a schema."""

from __future__ import annotations

import asyncio
from typing import Any

from tallyformer.errors import InvalidRequestError, UsageError
from tallyformer.inference.grammar import Grammars, MakeMask
from tallyformer.server.api_error import ApiError
from tallyformer.server.models import ServedModel

_FIELD = "response_format"
_UNUSABLE = "it is not a schema, or has a keyword that is not supported. Use a simpler one"
_COMPACT = {"x-guidance": {"whitespace_flexible": False}}
"""Where white space may stand between the tokens of JSON, a small model writes nothing else."""


async def mask_of(model: ServedModel, schema: Any) -> MakeMask | None:
    """What lets the model say only what fits a schema; None lets it say anything.

    Raises:
        ApiError: 400, the schema cannot be used, or this server has no llguidance.
    """
    if schema is None:
        return None
    try:
        return await asyncio.to_thread(_mask, model, schema)
    except UsageError as error:
        missing = not isinstance(error, InvalidRequestError)
        # The library's own words would repeat parts of the schema.
        reason = "this server has no grammars" if missing else _UNUSABLE
        raise ApiError(400, f"{_FIELD}: {reason}", param=_FIELD) from None


def _mask(model: ServedModel, schema: Any) -> MakeMask:
    if model.grammars is None:
        model.grammars = Grammars(model.llm.llm.tokenizer)
    return model.grammars.json_schema({**schema, **_COMPACT})
