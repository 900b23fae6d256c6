"""The form that an answer must have: JSON, a regular expression or a grammar."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tallyformer.errors import InvalidRequestError, UsageError
from tallyformer.inference.grammar import Grammars, MakeMask
from tallyformer.server.api_error import ApiError
from tallyformer.server.models import ServedModel
from tallyformer.server.schemas.answer_form import AnswerForm

_UNUSABLE = {
    "json": "it is not a schema, or has a keyword that is not supported. Use a simpler one",
    "regex": "it is not a regular expression that can be used. Use a simpler one",
    "grammar": "it is not a grammar, as GBNF or in Lark's notation. Correct it",
}


async def mask_of(model: ServedModel, form: AnswerForm | None) -> MakeMask | None:
    """What lets the model say only what has a form; None lets it say anything.

    Raises:
        ApiError: 400, the form cannot be used, or this server has no llguidance.
    """
    if form is None:
        return None
    try:
        return await asyncio.to_thread(_mask, model, form)
    except UsageError as error:
        missing = not isinstance(error, InvalidRequestError)
        # The library's own words would repeat parts of the form.
        reason = "this server has no grammars" if missing else _UNUSABLE[form.kind]
        raise ApiError(400, f"{form.field}: {reason}", param=form.field) from None


def _mask(model: ServedModel, form: AnswerForm) -> MakeMask:
    if model.grammars is None:
        model.grammars = Grammars(model.llm.llm.tokenizer)
    if form.kind == "json":
        return model.grammars.json_schema(_schema(form.value))
    if form.kind == "regex":
        return model.grammars.regex(form.value)
    return model.grammars.gbnf(form.value)


def _schema(given: Any) -> dict[str, Any]:
    """A schema that may be given as a text."""
    try:
        schema = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise InvalidRequestError("json_schema: is not a schema. Give an object")
    return schema
