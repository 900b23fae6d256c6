"""Answers of JSON and of a schema."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import httpx2
import openai
import pytest
from pydantic import BaseModel

from . import test_chat as chat
from . import test_completions as completions
from . import test_responses as responses
from .conftest import Running
from .test_errors import check_envelope

pytest.importorskip("llguidance")


class Verdict(BaseModel):
    rating: Literal["buy", "hold", "sell"]
    sure: bool


SCHEMA = {**Verdict.model_json_schema(), "additionalProperties": False}
NAMED = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA}}
LONG: dict[str, Any] = {"max_tokens": 200, "ignore_eos": False}


def test_an_answer_fits_its_schema_whole_and_streamed(http: httpx2.Client) -> None:
    whole = chat.answer_of(http, response_format=NAMED, **LONG)["choices"][0]
    assert whole["finish_reason"] == "stop"
    Verdict.model_validate_json(whole["message"]["content"])
    chunks = chat.events(http, response_format=NAMED, **LONG)
    assert chat.text_of(chunks) == whole["message"]["content"]


def test_each_choice_has_its_own_place_in_the_grammar(http: httpx2.Client) -> None:
    asked = {"n": 4, "temperature": 5, "top_k": 0, "top_p": 1, "seed": 1, **LONG}
    body = chat.answer_of(http, response_format=NAMED, **asked)
    for choice in body["choices"]:
        Verdict.model_validate_json(choice["message"]["content"])


def test_any_object_may_be_wanted(http: httpx2.Client) -> None:
    asked = {**LONG, "max_tokens": 400, "temperature": 5, "top_k": 0, "top_p": 1, "seed": 5}
    choice = chat.answer_of(http, response_format={"type": "json_object"}, **asked)["choices"][0]
    text = choice["message"]["content"]
    assert text.startswith("{")
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(text), dict)


def test_completions_and_responses_take_a_schema_too(http: httpx2.Client) -> None:
    Verdict.model_validate_json(completions.texts(http, response_format=NAMED, **LONG)[0])
    flat = {"type": "json_schema", "name": "verdict", "schema": SCHEMA}
    asked = {"max_output_tokens": 200, "ignore_eos": False, "text": {"format": flat}}
    Verdict.model_validate_json(responses.said(http, **asked))


def test_the_official_client_parses(served: Running) -> None:
    with openai.OpenAI(base_url=served.url + "/v1", api_key="x", max_retries=0) as client:
        parsed = client.chat.completions.parse(
            model="tiny",
            messages=[{"role": "user", "content": "Buy?"}],
            response_format=Verdict,
            max_tokens=200,
        )
        assert isinstance(parsed.choices[0].message.parsed, Verdict)


@pytest.mark.parametrize(
    "given",
    [
        "json",
        {},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"schema": {"type": 5}}},
        {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://[::1]:9/schema"}}},
        {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "("}}},
    ],
)
def test_a_format_that_cannot_be_used_is_a_400(http: httpx2.Client, given: Any) -> None:
    detail = check_envelope(chat.post(http, response_format=given), 400)
    assert detail["param"] == "response_format"


GBNF = 'root ::= "a"{5,5} end\nend ::= [0-9] | "z"'
FORMS: list[tuple[dict[str, Any], str]] = [
    ({"grammar": GBNF}, "a{5}[0-9z]"),
    ({"grammar": 'start: "b" | "c" "d"'}, "b|cd"),
    ({"json_schema": {"const": "42"}}, '"42"'),
    ({"response_format": {"type": "json_object", "schema": {"const": "42"}}}, '"42"'),
    ({"structured_outputs": {"json": '{"const": 7}'}}, "7"),
    ({"structured_outputs": {"regex": "x[0-9]{3}"}}, "x[0-9]{3}"),
    ({"structured_outputs": {"choice": ["a.b (c)", "d\n"]}}, r"a\.b \(c\)|d\n"),
    ({"structured_outputs": {"grammar": GBNF}}, "a{5}[0-9z]"),
    ({"guided_json": {"const": [1]}}, r"\[1\]"),
    ({"guided_regex": "y+z"}, "y+z"),
    ({"guided_choice": ["up", "down"]}, "up|down"),
    ({"guided_grammar": GBNF}, "a{5}[0-9z]"),
]


@pytest.mark.parametrize(("asked", "pattern"), FORMS, ids=[str(asked) for asked, _ in FORMS])
def test_forms_in_the_words_of_other_servers_are_kept_to(
    http: httpx2.Client, asked: dict[str, Any], pattern: str
) -> None:
    body = {"temperature": 1, "seed": 2, **LONG, **asked}
    choice = chat.answer_of(http, **body)["choices"][0]
    assert re.fullmatch(pattern, choice["message"]["content"])
    assert choice["finish_reason"] == "stop"
    for path in ("/v1/completions", "/completion"):
        answer = http.post(path, json={"prompt": "Profit", **body}).json()
        assert re.fullmatch(pattern, answer.get("content") or answer["choices"][0]["text"])


@pytest.mark.parametrize(
    "asked",
    [
        {"grammar": "root ::= this is (not a grammar"},
        {"grammar": 'other ::= "a"'},
        {"grammar": "root ::= " + "(" * 20_000},
        {"grammar": "start: nothing"},
        {"grammar": "a" * 70_000},
        {"grammar": ""},
        {"guided_regex": "["},
        {"guided_choice": []},
        {"guided_choice": [""]},
        {"guided_json": "{"},
        {"guided_json": "[" * 20_000},
        {"json_schema": {"type": "hiccup"}},
        {"structured_outputs": {"grammar": "root ::= ("}},
        {"response_format": {"type": "json_object", "schema": 123}},
        {"response_format": {"type": "json_object", "schema": {"type": "hiccup"}}},
    ],
    ids=lambda asked: str(asked)[:40],
)
def test_a_form_that_cannot_be_used_is_a_400_that_names_it(
    http: httpx2.Client, asked: dict[str, Any]
) -> None:
    detail = check_envelope(chat.post(http, **asked), 400)
    assert detail["param"].partition(".")[0] == next(iter(asked))


def test_an_answer_has_one_form(http: httpx2.Client) -> None:
    for asked in ({"grammar": GBNF}, {"structured_outputs": {"regex": "a", "choice": ["b"]}}):
        detail = check_envelope(chat.post(http, guided_regex="a", **asked), 400)
        assert detail["param"] in ("grammar", "guided_regex", "structured_outputs")
