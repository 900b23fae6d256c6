"""`/v1/responses` over a real connection, and through the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tallyformer.server.settings import ServerSettings

from .conftest import PATIENCE, Running, running
from .test_chat import answer_of
from .test_errors import check_envelope

ASK: dict[str, Any] = {
    "model": "tiny",
    "input": "What is a bond?",
    "temperature": 0,
    "max_output_tokens": 8,
    "ignore_eos": True,
}


def post(http: httpx2.Client, **changes: Any) -> httpx2.Response:
    return http.post("/v1/responses", json={**ASK, **changes})


def said(http: httpx2.Client, **changes: Any) -> str:
    answer = post(http, **changes)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["output"][0]["content"][0]["text"]
    return text


def test_the_answer_is_that_of_a_chat(http: httpx2.Client) -> None:
    chat = answer_of(http)
    response = post(http).json()
    assert response["output"][0]["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    usage, counted = response["usage"], chat["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (counted["prompt_tokens"], 8)


def test_instructions_and_all_forms_of_messages_are_read(http: httpx2.Client) -> None:
    system = [{"role": "system", "content": "Brief."}]
    question = [{"role": "user", "content": "Profit?"}]
    expected = answer_of(http, messages=[*system, *question])["choices"][0]["message"]["content"]
    parts = [{"type": "input_text", "text": "Profit?"}]
    for form in (
        {"instructions": "Brief.", "input": "Profit?"},
        {"instructions": "Brief.", "input": question},
        {"input": [{"role": "developer", "content": "Brief."}, *question]},
        {
            "instructions": "Brief.",
            "input": [{"type": "message", "role": "user", "content": parts}],
        },
    ):
        assert said(http, **form) == expected


def test_a_streams_events_are_numbered_named_and_in_order(http: httpx2.Client) -> None:
    answer = post(http, stream=True)
    assert answer.content.isascii()
    blocks = answer.text.removesuffix("\n\n").split("\n\n")
    events = []
    for block in blocks:
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    names = [event["type"].removeprefix("response.") for event in events]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert names[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert names[4:-4] == ["output_text.delta"] * len(deltas)
    assert names[-4:-1] == ["output_text.done", "content_part.done", "output_item.done"]
    assert names[-1] == "incomplete"
    assert "".join(deltas) == events[-4]["text"] == said(http)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", None),
        ("input", []),
        ("input", 5),
        ("input.0.content", [{"role": "user", "content": [{"type": "input_image"}]}]),
        ("input.0.type", [{"type": "function_call_output", "role": "user", "content": "x"}]),
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("background", True),
        ("top_logprobs", 21),
        ("input", "bond " * 5000),
        ("input", [{"role": "system", "content": "x"}]),
        ("text.format", {"format": {"type": "json_scheme"}}),
        ("tool_choice", "required"),
        ("n", 2),
        ("max_output_tokens", 0),
        ("truncation", "middle"),
    ],
)
def test_what_cannot_be_honoured_is_a_400_that_names_the_field(
    http: httpx2.Client, field: str, value: Any
) -> None:
    answer = post(http, **{field.partition(".")[0]: value})
    assert check_envelope(answer, 400)["param"] == field


def test_log_probabilities_are_those_of_a_chat(http: httpx2.Client) -> None:
    asked: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    answer = post(http, **asked)
    assert "x-ignored-fields" not in answer.headers
    found = answer.json()["output"][0]["content"][0]["logprobs"]
    assert (
        found == answer_of(http, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    )
    lines = post(http, **asked, stream=True).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    deltas = [e["logprobs"] for e in events if e["type"] == "response.output_text.delta"]
    assert [entry for delta in deltas for entry in delta] == found
    assert events[-4]["logprobs"] == events[-3]["part"]["logprobs"] == found
    assert post(http).json()["output"][0]["content"][0]["logprobs"] == []


def test_what_was_answered_is_sent_back_as_it_was_with_what_others_thought(
    http: httpx2.Client,
) -> None:
    question = {"role": "user", "content": "Gain?"}
    short = {"max_output_tokens": 2}
    output = post(http, input=[question], **short).json()["output"]
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None}
    again = post(http, input=[question, thought, *output, question], **short)
    assert again.status_code == 200, again.text
    assert again.headers["x-ignored-fields"] == "input.reasoning, input.id, input.status"
    plain = {"role": "assistant", "content": output[0]["content"][0]["text"]}
    right = said(http, input=[question, plain, question], **short)
    assert again.json()["output"][0]["content"][0]["text"] == right


def test_what_is_wrong_has_its_place_in_the_input_that_was_sent(http: httpx2.Client) -> None:
    question = {"role": "user", "content": "Gain?"}
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    for wrong, param in (
        ({"role": "user", "content": 5}, "input.2.content"),
        ({"role": "nobody", "content": "a"}, "input.2.role"),
        (5, "input.2"),
    ):
        detail = check_envelope(post(http, input=[question, thought, wrong]), 400)
        assert detail["param"] == param and detail["message"].startswith(f"{param}: ")
    assert check_envelope(post(http, input=[thought]), 400)["param"] == "input"


def test_the_entries_of_a_streams_parts_are_those_of_the_whole(http: httpx2.Client) -> None:
    asked: dict[str, Any] = {"include": ["message.output_text.logprobs"], "max_output_tokens": 6}
    text = said(http, **asked)
    for stop in {text[start : start + 2] for start in range(len(text))}:
        lines = post(http, **asked, stop=[stop], stream=True).text.splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        deltas = [e for e in events if e["type"] == "response.output_text.delta"]
        assert [entry for e in deltas for entry in e["logprobs"]] == events[-4]["logprobs"], stop
        assert "".join(e["delta"] for e in deltas) == events[-4]["text"]


def test_turns_are_left_out_only_if_it_is_allowed(http: httpx2.Client) -> None:
    older = [{"role": "user", "content": "bond " * 4}, {"role": "assistant", "content": "x " * 8}]
    messages = [*older, {"role": "user", "content": "What is a bond?"}]
    detail = check_envelope(post(http, input=messages), 400)
    assert detail["code"] == "context_length_exceeded"
    answer = post(http, input=messages, truncation="auto")
    assert int(answer.headers["x-context-left-out"]) > 0
    assert said(http, input=messages, truncation="auto") == said(http)


@pytest.fixture
def client(served: Running) -> Iterator[openai.OpenAI]:
    url = served.url + "/v1"
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0, timeout=PATIENCE) as made:
        yield made


def test_the_official_client_asks_and_streams(client: openai.OpenAI) -> None:
    shared: Any = {"model": "tiny", "input": "What is a bond?", "temperature": 0}
    whole = client.responses.create(**shared, max_output_tokens=8)
    assert whole.output_text
    with client.responses.stream(**shared, max_output_tokens=8) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
    assert text == whole.output_text


def test_the_official_client_raises_what_fails_in_mid_stream(tally_folder: Path) -> None:
    settings = ServerSettings(models={"tiny": tally_folder}, request_timeout=0.3)
    with running(settings) as server:
        server.wait_until_ready()
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0)
        stream = client.responses.create(
            model="tiny",
            input="Profit?",
            max_output_tokens=10_000_000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        with pytest.raises(openai.APIError, match="longer than this server allows"):
            list(stream)
