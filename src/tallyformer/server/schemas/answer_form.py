"""Forms that an answer must have, in the words of OpenAI, of vLLM and of llama.cpp's server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tallyformer.errors import InvalidRequestError
from tallyformer.server.schemas.request import RequestPart
from tallyformer.server.schemas.response_format import ANY_OBJECT, checked_format, wanted_schema

_MOST_CHOICES = 1024
_Text = Annotated[str, Field(min_length=1, max_length=1 << 16)]
_Choices = Annotated[list[_Text], Field(min_length=1, max_length=_MOST_CHOICES)]
_Schema = dict[str, Any] | str
Kind = Literal["json", "regex", "grammar"]


@dataclass(frozen=True)
class AnswerForm:
    """What an answer must be.

    Attributes:
        field: of the request, that says so.
        kind: JSON of a schema, what a regular expression matches, or text of a grammar, as GBNF or
            in Lark's notation.
        value: the schema, expression or grammar.
    """

    field: str
    kind: Kind
    value: Any


class StructuredOutputs(RequestPart):
    """One of them."""

    json_schema: _Schema | None = Field(None, alias="json")
    json_object: bool = False
    regex: _Text | None = None
    choice: _Choices | None = None
    grammar: _Text | None = None

    def forms(self) -> Iterator[AnswerForm]:
        """Those that are given."""
        name = "structured_outputs"
        yield from _forms(name, "json", self.json_schema)
        yield from _forms(name, "json", ANY_OBJECT if self.json_object else None)
        yield from _forms(name, "regex", self.regex)
        yield from _forms(name, "regex", one_of(self.choice))
        yield from _forms(name, "grammar", self.grammar)


class FormFields(RequestPart):
    """The fields of a request that say what form its answer must have."""

    response_format: Any = Field(
        None, description="text, json_object, or json_schema with a schema."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="json, regex, choice or grammar, as vLLM has it."
    )
    guided_json: _Schema | None = Field(None, description="A schema.")
    guided_regex: _Text | None = Field(None, description="What the answer matches as a whole.")
    guided_choice: _Choices | None = Field(None, description="The answer is one of these.")
    guided_grammar: _Text | None = Field(None, description="As grammar.")
    grammar: _Text | None = Field(
        None, description="Of the answer, as GBNF, which llama.cpp has, or in Lark's notation."
    )
    json_schema: _Schema | None = Field(None, description="A schema, as llama.cpp has it.")

    @field_validator("response_format", mode="before")
    @classmethod
    def _known_format(cls, given: Any) -> Any:
        return checked_format(given)

    @property
    def wanted_format(self) -> AnswerForm | None:
        """What `response_format` says."""
        schema = None if self.response_format is None else wanted_schema(self.response_format)
        return None if schema is None else AnswerForm("response_format", "json", schema)

    @property
    def answer_form(self) -> AnswerForm | None:
        """What the answer must be; None for any text.

        Raises:
            InvalidRequestError: two forms are given.
        """
        found = [] if self.wanted_format is None else [self.wanted_format]
        if self.structured_outputs is not None:
            found += self.structured_outputs.forms()
        found += _forms("guided_json", "json", self.guided_json)
        found += _forms("guided_regex", "regex", self.guided_regex)
        found += _forms("guided_choice", "regex", one_of(self.guided_choice))
        found += _forms("guided_grammar", "grammar", self.guided_grammar)
        found += _forms("grammar", "grammar", self.grammar)
        found += _forms("json_schema", "json", self.json_schema)
        if len(found) > 1:
            raise InvalidRequestError(
                f"{found[1].field}: an answer has one form, and {found[0].field} gives it. Omit one"
            )
        return found[0] if found else None


def one_of(texts: list[str] | None) -> str | None:
    """The regular expression that matches these texts alone."""
    return None if texts is None else "|".join(map(re.escape, texts))


def _forms(field: str, kind: Kind, value: Any) -> Iterator[AnswerForm]:
    if value is not None:
        yield AnswerForm(field, kind, value)
