"""The paths, fields and answers of llama.cpp's server that its clients use."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from tallyformer import __version__
from tallyformer.errors import InvalidRequestError
from tallyformer.inference.llm import LLM
from tallyformer.server.schemas.native import NativeCompletionRequest

from .conftest import PATIENCE, Running
from .test_errors import check_envelope

PROMPT = "A bond pays"


def completion(http: httpx2.Client, **fields: Any) -> Any:
    answer = http.post("/completion", json={"prompt": PROMPT, "n_predict": 8, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(http: httpx2.Client, **fields: Any) -> list[Any]:
    answer = http.post(
        "/completion", json={"prompt": PROMPT, "n_predict": 8, "stream": True, **fields}
    )
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_completion_has_the_text_that_openais_has(http: httpx2.Client, tally: LLM) -> None:
    found = completion(http, temperature=0, cache_prompt=True, return_tokens=True)
    asked = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    right = http.post("/v1/completions", json={"model": "tiny", **asked}).json()
    assert found["content"] == right["choices"][0]["text"]
    assert tally.tokenizer.decode(found["tokens"]) == found["content"]
    assert found["stop"] is True and found["stop_type"] == "limit"
    prompt = len(tally.tokenizer.encode(PROMPT))
    assert found["timings"] == {"prompt_n": prompt, "predicted_n": 8}
    assert (found["tokens_evaluated"], found["tokens_predicted"]) == (prompt, 8)
    assert found["generation_settings"]["n_predict"] == 8
    assert found["prompt"] == PROMPT and found["model"] == "tiny"
    assert completion(http, temperature=0)["tokens"] == []


def test_a_stream_joined_is_the_whole_answer_and_says_stop_once(http: httpx2.Client) -> None:
    whole, parts = completion(http, temperature=0), events(http, temperature=0)
    assert "".join(part["content"] for part in parts) == whole["content"]
    assert [part["stop"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert sum(len(part["tokens"]) for part in parts) == 8
    assert {**parts[-1], "content": whole["content"]} == whole


def test_a_streams_tokens_are_those_of_the_whole_whatever_ends_it(http: httpx2.Client) -> None:
    text = completion(http, temperature=0)["content"]
    for stop in {text[start : start + 2] for start in range(len(text))}:
        asked: dict[str, Any] = {"temperature": 0, "n_probs": 1, "stop": [stop]}
        whole = completion(http, **asked, return_tokens=True)
        parts = events(http, **asked)
        assert [token for part in parts for token in part["tokens"]] == whole["tokens"], stop
        scored = [e for part in parts for e in part.get("completion_probabilities", ())]
        assert scored == whole["completion_probabilities"]
        assert all(part["content"] for part in parts[:-1])


def test_a_list_of_prompts_has_a_list_of_answers(http: httpx2.Client, tally: LLM) -> None:
    ids = tally.tokenizer.encode(PROMPT)
    several = completion(http, prompt=[PROMPT, ids], temperature=0)
    assert [one["index"] for one in several] == [0, 1]
    assert several[0]["content"] == several[1]["content"]
    assert completion(http, prompt=[PROMPT], temperature=0) == several[0]


def test_probabilities_are_those_of_the_tokens(http: httpx2.Client, tally: LLM) -> None:
    found = completion(http, temperature=0, n_probs=3, return_tokens=True, n_predict=4)
    entries = found["completion_probabilities"]
    assert [entry["id"] for entry in entries] == found["tokens"]
    for entry in entries:
        assert len(entry["top_logprobs"]) == 3
        assert bytes(entry["bytes"]) == tally.tokenizer.bytes_of(entry["id"])
        assert entry["logprob"] == max(other["logprob"] for other in entry["top_logprobs"]) <= 0
    streamed = [p for p in events(http, temperature=0, n_probs=3, n_predict=4) if not p["stop"]]
    assert [e for part in streamed for e in part["completion_probabilities"]] == entries


def test_its_names_of_settings_mean_what_openais_mean(http: httpx2.Client) -> None:
    assert completion(http, n_predict=-1, temperature=0, stop=["e"])["stop_type"] in ("word", "eos")
    settings = completion(http, repeat_penalty=1.5, seed=-1, top_k=4)["generation_settings"]
    assert (settings["repeat_penalty"], settings["seed"], settings["top_k"]) == (1.5, None, 4)
    first = completion(http, temperature=0, return_tokens=True, n_predict=1)["tokens"][0]
    for bias in ([[first, False]], {str(first): -100}):
        other = completion(http, temperature=0, return_tokens=True, n_predict=1, logit_bias=bias)
        assert other["tokens"][0] != first
    schema = {"type": "object", "properties": {"up": {"type": "boolean"}}, "required": ["up"]}
    schema["additionalProperties"] = False
    written = completion(http, json_schema=schema, n_predict=64)["content"]
    assert isinstance(json.loads(written)["up"], bool)


def test_texts_and_ids_in_a_row_are_one_prompt(http: httpx2.Client, tally: LLM) -> None:
    first, second = (tally.tokenizer.encode(text) for text in ("A bond", " pays"))
    right = completion(http, temperature=0, prompt=[*first, *second])
    for mixed in (["A bond", *second], [*first, " pays"], [*first[:1], "", *first[1:], " pays"]):
        assert completion(http, temperature=0, prompt=mixed) == right
    several = completion(http, temperature=0, prompt=[["A bond", *second], "A", second])
    assert [one["tokens_evaluated"] for one in several] == [
        len(first + second),
        len(tally.tokenizer.encode("A")),
        len(second),
    ]
    assert several[0] == right


def test_a_text_is_kept_away_by_its_tokens(http: httpx2.Client, tally: LLM) -> None:
    first = completion(http, temperature=0, n_predict=1)
    ids = tally.tokenizer.encode(first["content"])
    for bias in ([[first["content"], False]], {first["content"]: -100}):
        other = completion(http, temperature=0, n_predict=1, logit_bias=bias)
        assert other["content"] != first["content"]
        shown = other["generation_settings"]["logit_bias"]
        assert shown == [{"token": token_id, "bias": -100} for token_id in ids]
    settings = completion(http, ignore_eos=True)["generation_settings"]
    assert settings["logit_bias"] == [{"token": tally.tokenizer.eot_id, "bias": None}]


def test_a_string_of_digits_in_a_pair_is_a_text_and_an_integer_is_an_id(
    http: httpx2.Client, tally: LLM
) -> None:
    def biased(bias: Any) -> Any:
        shown = completion(http, n_predict=1, logit_bias=bias)["generation_settings"]["logit_bias"]
        return {one["token"]: one["bias"] for one in shown}

    digits = dict.fromkeys(tally.tokenizer.encode("5"), -100)
    assert biased([["5", False]]) == digits != {5: -100}
    assert biased([[5, False]]) == biased({"5": -100}) == biased({"5": False}) == {5: -100}
    assert biased([["5", False], [5, 1.5]]) == {**digits, 5: 1.5}


@pytest.mark.parametrize(
    "bias",
    [
        *([[-1, False]], [[5.0, 1]], [[True, 1]], [[None, 1]], [[{"a": 1}, 1]], [[["5"], 1]]),
        *([["", 1]], [[10**9, 1]], [[5, True]], [[5, "1"]], [[5, None]], [[5]], [[5, 1, 1]], [5]),
        *({"5": True}, {"5": "1"}, {"5": 101}, {"": 1}, [[5, 101]], "5", 5),
        [[token_id, 1] for token_id in range(1025)],
        # So many ids, and the tokens of a text.
        [*([token_id, 1] for token_id in range(10**6, 10**6 + 1023)), ["A bond pays", 1]],
    ],
)
def test_a_bias_that_is_none_is_a_400(http: httpx2.Client, bias: Any) -> None:
    refused = http.post("/completion", json={"prompt": PROMPT, "logit_bias": bias})
    assert check_envelope(refused, 400)["param"] == "logit_bias"


def test_texts_of_a_bias_have_no_more_tokens_than_ids_may_be(tally: LLM) -> None:
    ids = [[token_id, 1] for token_id in range(10**6, 10**6 + 1023)]
    one, several = (
        NativeCompletionRequest.model_validate({"prompt": "a", "logit_bias": [*ids, [text, 1]]})
        for text in ("e", "A bond pays")
    )
    assert len(one.with_ids(tally.tokenizer).logit_bias) == 1024
    with pytest.raises(InvalidRequestError, match="logit_bias: may name 1024 tokens"):
        several.with_ids(tally.tokenizer)


def test_an_answer_has_the_fields_that_are_wanted(http: httpx2.Client) -> None:
    wanted = ["content", "generation_settings/n_predict", "nothing", "prompt/nothing"]
    whole = completion(http, temperature=0)
    chosen = {"content": whole["content"], "generation_settings/n_predict": 8}
    assert completion(http, temperature=0, response_fields=wanted) == chosen
    last = events(http, temperature=0, response_fields=wanted)[-1]
    assert last == {**chosen, "content": ""}
    assert completion(http, temperature=0, response_fields=[]) == whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("n_predict", "8"), ("n_probs", 21), ("repeat_penalty", 0), ("max_tokens", "8")),
        *(("repetition_penalty", -5), ("repeat_penalty", -5), ("logprobs", 21)),
    ],
)
def test_what_is_wrong_has_the_name_that_the_client_gave(
    http: httpx2.Client, field: str, value: Any
) -> None:
    refused = http.post("/completion", json={"prompt": PROMPT, field: value})
    detail = check_envelope(refused, 400)
    assert detail["param"] == field and detail["message"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    "fields", [{"n": 2}, {"echo": True}, {"logit_bias": [[1]]}, {"prompt": []}, {"n_predict": "8"}]
)
def test_what_it_cannot_do_is_refused(http: httpx2.Client, fields: dict[str, Any]) -> None:
    check_envelope(http.post("/completion", json={"prompt": PROMPT, **fields}), 400)


def test_paths_without_v1_answer_alike(served: Running, tally: LLM) -> None:
    with (
        openai.OpenAI(base_url=served.url, api_key="x", timeout=PATIENCE) as bare,
        openai.OpenAI(base_url=served.url + "/v1", api_key="x", timeout=PATIENCE) as usual,
    ):
        asked: Any = {"model": "tiny", "messages": [{"role": "user", "content": "Profit?"}]}
        said = [
            client.chat.completions.create(**asked, temperature=0, max_tokens=6).choices
            for client in (bare, usual)
        ]
        assert said[0] == said[1]
        assert [m.id for m in bare.models.list()] == [m.id for m in usual.models.list()]
        shared: Any = {"model": "tiny", "input": "Profit?", "temperature": 0}
        texts = [c.responses.create(**shared, max_output_tokens=6) for c in (bare, usual)]
        assert texts[0].output_text == texts[1].output_text


def test_a_request_without_a_model_is_answered_by_the_first(http: httpx2.Client) -> None:
    body = {"messages": [{"role": "user", "content": "Profit?"}], "max_tokens": 2}
    assert http.post("/v1/chat/completions", json=body).json()["model"] == "tiny"


def test_the_server_says_what_it_is(http: httpx2.Client, tally: LLM) -> None:
    props = http.get("/props").json()
    assert props["default_generation_settings"]["n_ctx"] == tally.context_length
    assert props["total_slots"] == len(http.get("/slots").json())
    assert props["chat_template"] == tally.tokenizer.chat_template()
    assert not any(slot["is_processing"] for slot in http.get("/slots").json())


def test_a_conversation_as_text_has_the_same_ids(http: httpx2.Client, tally: LLM) -> None:
    messages: Any = [{"role": "user", "content": "What is <|user|> a bond?"}]
    prompt = http.post("/apply-template", json={"messages": messages}).json()["prompt"]
    ids = tally.tokenizer.encode_chat(messages, add_generation_prompt=True)
    assert prompt == tally.tokenizer.decode(ids, skip_control=False)


def test_options_of_a_stream_need_a_stream(http: httpx2.Client) -> None:
    body = {"model": "tiny", "prompt": PROMPT, "stream_options": {"include_usage": True}}
    assert check_envelope(http.post("/v1/completions", json=body), 400)["param"] == "stream_options"


def test_an_answer_ends_with_a_token_that_is_named(http: httpx2.Client) -> None:
    fields: dict[str, Any] = {"temperature": 0, "return_tokens": True, "ignore_eos": True}
    third = completion(http, **fields)["tokens"][2]
    body = {"prompt": PROMPT, "temperature": 0, "stop_token_ids": [third], "max_tokens": 8}
    answer = http.post("/v1/completions", json=body).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] <= 3


def test_the_pieces_of_tokens_joined_are_the_text(http: httpx2.Client) -> None:
    text = "Zinsen für 5 € 🤗"
    tokens = http.post("/tokenize", json={"content": text, "with_pieces": True}).json()["tokens"]
    plain = http.post("/tokenize", json={"content": text}).json()["tokens"]
    assert [token["id"] for token in tokens] == plain
    pieces = [token["piece"] for token in tokens]
    joined = b"".join(p.encode() if isinstance(p, str) else bytes(p) for p in pieces)
    assert joined.decode() == text


def test_the_version_is_told(http: httpx2.Client) -> None:
    assert http.get("/version").json() == {"version": __version__}
