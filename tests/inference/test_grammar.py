"""Whatever the model finds likely, an answer has the form that was asked for."""

from __future__ import annotations

import json
import re
from types import MappingProxyType
from typing import Any

import pytest

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams

pytest.importorskip("llguidance")

from tallyformer.inference.grammar import Grammars

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["bond", "share"]}, "price": {"type": "boolean"}},
    "required": ["name", "price"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammars(tally: LLM) -> Grammars:
    return Grammars(tally.tokenizer)


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_json_fits_its_schema_and_then_the_answer_ends(
    tally: LLM, grammars: Grammars, temperature: float
) -> None:
    params = SamplingParams(
        seed=1,
        temperature=temperature,
        max_tokens=200,
        n=5,
        token_mask=grammars.json_schema(SCHEMA),
    )
    for output in tally.generate("A bond", params):
        assert output.finish_reason == "stop"
        found = json.loads(output.text)
        assert output.text == json.dumps(found, separators=(",", ":"))
        assert found["name"] in ("bond", "share") and isinstance(found["price"], bool)


def test_a_regular_expression_and_a_grammar_are_kept_to(tally: LLM, grammars: Grammars) -> None:
    masks = [grammars.regex(r"[0-9]{2,4} €"), grammars.lark('start: /[0-9]{2,4}/ " €"')]
    params = [SamplingParams(seed=2, temperature=3.0, token_mask=mask) for mask in masks]
    for output in tally.generate(["A bond", "5"], params):
        assert re.fullmatch(r"[0-9]{2,4} €", output.text)
        assert output.finish_reason == "stop"


def test_what_is_no_grammar_is_refused_in_one_line(grammars: Grammars) -> None:
    for refused in (
        lambda: grammars.json_schema({"type": "nothing"}),
        lambda: grammars.json_schema("{"),
        lambda: grammars.regex("("),
        lambda: grammars.lark("start: unknown"),
    ):
        with pytest.raises(InvalidRequestError, match="cannot be used") as caught:
            refused()
        assert "\n" not in str(caught.value)


_CIRCLE: dict[str, Any] = {}
_CIRCLE["properties"] = _CIRCLE


@pytest.mark.parametrize("wrong", [object, object(), {1, 2}, b"{}", {(1, 2): 3}, _CIRCLE, 3.5, []])
def test_what_is_no_text_and_no_schema_is_refused_in_one_line(
    grammars: Grammars, wrong: Any
) -> None:
    for ask in (grammars.json_schema, grammars.regex, grammars.lark):
        with pytest.raises(InvalidRequestError, match=r"must be|cannot be used") as caught:
            ask(wrong)
        assert "\n" not in str(caught.value)


def test_any_mapping_is_a_schema(grammars: Grammars) -> None:
    assert callable(grammars.json_schema(MappingProxyType(SCHEMA)))
