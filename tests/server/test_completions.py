"""`/v1/completions` over a real connection, and through the official client."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams

from .conftest import Running
from .test_errors import check_envelope

ASK: dict[str, Any] = {
    "model": "tiny",
    "prompt": "A bond pays",
    "temperature": 0,
    "max_tokens": 6,
    "ignore_eos": True,
}
GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


@pytest.mark.parametrize(
    ("given", "same"),
    [({"top_k": -1}, {"top_k": 0}), ({"top_p": 0}, {"temperature": 0}), ({"suffix": ""}, {})],
)
def test_what_usual_clients_write_for_no_choice_is_understood(
    http: httpx2.Client, given: dict[str, Any], same: dict[str, Any]
) -> None:
    sampled = {"temperature": 1, "seed": 7, "max_tokens": 12, "ignore_eos": True}
    answer = post(http, **sampled, **given)
    assert answer.status_code == 200, answer.text
    assert "x-ignored-fields" not in answer.headers
    right = post(http, **{**sampled, **same}).json()
    assert answer.json()["choices"][0]["text"] == right["choices"][0]["text"]


def post(http: httpx2.Client, **changes: Any) -> httpx2.Response:
    return http.post("/v1/completions", json={**ASK, **changes})


def texts(http: httpx2.Client, **changes: Any) -> list[str]:
    answer = post(http, **changes)
    assert answer.status_code == 200, answer.text
    return [choice["text"] for choice in answer.json()["choices"]]


def test_all_forms_of_prompts_are_answered_as_the_python_llm_does(
    http: httpx2.Client, tally: LLM
) -> None:
    first, second = "A bond pays", "Revenue minus"
    ids = [tally.tokenizer.encode(text) for text in (first, second)]
    expected = [output.text for output in tally.generate([first, second], GREEDY)]
    assert texts(http, prompt=first) == expected[:1]
    assert texts(http, prompt=[first, second]) == expected
    assert texts(http, prompt=ids[0]) == expected[:1]
    assert texts(http, prompt=ids) == expected
    assert texts(http, prompt=[first, ids[1]]) == expected
    assert texts(http, prompt="") == [tally.generate("", GREEDY)[0].text]


def test_prompts_and_choices_are_indexed_in_order_and_usage_counts_a_prompt_once(
    http: httpx2.Client, tally: LLM
) -> None:
    asked = {"prompt": ["A bond", "Profit"], "n": 2, "temperature": 5, "top_k": 0, "seed": 1}
    body = post(http, **asked).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert texts(http, **{**asked, "prompt": "Profit"}) == [c["text"] for c in body["choices"][2:]]
    prompt = sum(len(tally.tokenizer.encode(text)) for text in asked["prompt"])  # type: ignore[attr-defined]
    assert body["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 24,
        "total_tokens": prompt + 24,
    }


def test_echo_puts_the_prompt_before(http: httpx2.Client, tally: LLM) -> None:
    plain = texts(http)[0]
    assert texts(http, echo=True) == [ASK["prompt"] + plain]
    assert texts(http, echo=True, prompt=tally.tokenizer.encode("A bond pays")) == [
        ASK["prompt"] + plain
    ]
    chunks = stream(http, echo=True)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == ASK["prompt"] + plain


def stream(http: httpx2.Client, **changes: Any) -> list[dict[str, Any]]:
    answer = post(http, stream=True, **changes)
    assert answer.content.endswith(b"data: [DONE]\n\n")
    events = [line for line in answer.text.split("\n\n") if line.startswith("data: {")]
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_a_stream_is_text_then_a_reason_without_text(http: httpx2.Client) -> None:
    chunks = stream(http)
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert all(choice["text"] for choice in choices[:-1])
    assert (choices[-1]["text"], choices[-1]["finish_reason"]) == ("", "length")
    assert "".join(choice["text"] for choice in choices) == texts(http)[0]


def test_a_whole_context_of_prompt_is_read_and_more_is_refused(
    http: httpx2.Client, tally: LLM
) -> None:
    ids = (tally.tokenizer.encode("bond ") * 40)[: tally.context_length]
    assert texts(http, prompt=ids)
    detail = check_envelope(post(http, prompt=[*ids, ids[0]]), 400)
    assert (detail["code"], detail["param"]) == ("context_length_exceeded", "prompt")
    uncounted = check_envelope(post(http, prompt=[10**9] * (tally.context_length + 1)), 400)
    assert uncounted["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", []),
        ("prompt", [[]]),
        ("prompt", [1, "a"]),
        ("prompt", [True]),
        ("prompt", [-1]),
        ("prompt", [10**9]),
        ("prompt", [[1, 10**400]]),
        ("prompt", {"text": "a"}),
        ("prompt", ["a"] * 257),
        ("suffix", "end"),
        ("echo", "yes"),
    ],
)
def test_what_cannot_be_honoured_is_a_400_that_names_the_field(
    http: httpx2.Client, field: str, value: Any
) -> None:
    assert check_envelope(post(http, **{field: value}), 400)["param"] == field


def test_too_many_answers_are_refused_at_once(http: httpx2.Client) -> None:
    assert check_envelope(post(http, prompt=["a"] * 200, n=2), 400)["param"] == "prompt"


def test_a_text_that_spells_a_control_token_stays_text(http: httpx2.Client, tally: LLM) -> None:
    body = post(http, prompt="<|endoftext|>").json()
    assert body["usage"]["prompt_tokens"] == len(tally.tokenizer.encode("<|endoftext|>")) > 1


def test_the_official_client_completes(served: Running) -> None:
    with openai.OpenAI(base_url=served.url + "/v1", api_key="x", max_retries=0) as client:
        asked: Any = {k: v for k, v in ASK.items() if k != "ignore_eos"}
        whole = client.completions.create(**asked, extra_body={"ignore_eos": True})
        parts = client.completions.create(**asked, extra_body={"ignore_eos": True}, stream=True)
        assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
