"""`/tokenize`, `/detokenize`, and what the earlier system of this name had."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.server.settings import ServerSettings

from .conftest import Running, running
from .test_chat_prompt import CONVERSATION
from .test_errors import check_envelope

PLAIN: dict[str, Any] = {
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": [{"role": "user", "content": "a"}]},
}


def test_what_has_no_effect_is_named_everywhere(http: httpx2.Client) -> None:
    question = [{"role": "user", "content": "a", "name": "me"}]
    for path, body, names in (
        ("/tokenize", {"prompt": "a", "odd": 1}, "odd"),
        ("/tokenize", {"messages": question}, "messages.name"),
        ("/tokenize", {"content": "a", "add_generation_prompt": False}, "add_generation_prompt"),
        (
            "/tokenize",
            {"prompt": "a", "continue_final_message": True, "add_generation_prompt": True},
            "add_generation_prompt, continue_final_message",
        ),
        ("/detokenize", {"tokens": [1], "odd": 1}, "odd"),
        ("/apply-template", {"messages": question}, "messages.name"),
    ):
        assert http.post(path, json=body).headers["x-ignored-fields"] == names
        assert "x-ignored-fields" not in http.post(path, json=PLAIN[path]).headers


def test_ids_and_text_lead_to_each_other(http: httpx2.Client, tally: LLM) -> None:
    text = "Zinsen für Jürgen: 5 € <|user|>"
    ids = tally.tokenizer.encode(text)
    for body in ({"prompt": text}, {"content": text, "model": "tiny"}):
        assert http.post("/tokenize", json=body).json() == {
            "tokens": ids,
            "count": len(ids),
            "max_model_len": tally.context_length,
        }
    assert http.post("/detokenize", json={"tokens": ids}).json() == {
        "prompt": text,
        "content": text,
    }


def test_a_conversation_has_ids_however_long_it_is(http: httpx2.Client, tally: LLM) -> None:
    messages = [{"role": role, "content": content} for role, content in CONVERSATION] * 3
    ids = http.post("/tokenize", json={"messages": messages}).json()["tokens"]
    assert len(ids) > tally.context_length
    assert ids[0] == tally.tokenizer.user_id
    assert ids[-1] == tally.tokenizer.assistant_id


def test_a_conversation_ends_as_the_request_says(http: httpx2.Client, tally: LLM) -> None:
    question: Any = [{"role": "user", "content": "Profit?"}]
    answered = [*question, {"role": "assistant", "content": "Money."}]
    encode = tally.tokenizer.encode_chat

    def ids(messages: Any, **fields: bool) -> Any:
        asked = {"messages": messages, **fields}
        answer = http.post("/tokenize", json=asked)
        assert "x-ignored-fields" not in answer.headers
        written = http.post("/apply-template", json=asked).json()["prompt"]
        found = answer.json()["tokens"]
        assert written == tally.tokenizer.decode(found, skip_control=False)
        return found

    assert ids(question) == ids(question, add_generation_prompt=True) == encode(question, True)
    assert ids(question, add_generation_prompt=False) == encode(question)
    assert ids(answered, continue_final_message=False) == encode(answered)
    assert ids(answered) == ids(answered, continue_final_message=True) == encode(answered)[:-1]
    for messages, field in (
        (answered, "add_generation_prompt"),
        (question, "continue_final_message"),
    ):
        for path in ("/tokenize", "/apply-template"):
            refused = http.post(path, json={"messages": messages, field: True})
            detail = check_envelope(refused, 400)
            assert detail["param"] == field
            assert detail["message"].startswith(f"{field}: cannot be true when the last message is")


def test_the_texts_of_tokens_are_given_beside_their_ids(http: httpx2.Client, tally: LLM) -> None:
    body = {"prompt": "A bond pays 5 €", "return_token_strs": True}
    found = http.post("/tokenize", json=body).json()
    assert len(found["token_strs"]) == found["count"]
    spelled = [tally.tokenizer.bytes_of(i).decode(errors="replace") for i in found["tokens"]]
    assert found["token_strs"] == spelled


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "a", "content": "a"}),
        ("/tokenize", {"prompt": 5}),
        ("/detokenize", {"tokens": [10**9]}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": "a"}),
        ("/generate", {}),
        ("/generate", {"prompt": "a", "model_name": "tiny", "topk": -1}),
        ("/generate", {"prompt": "bond " * 100, "model_name": "tiny"}),
    ],
)
def test_what_cannot_be_done_is_a_400(http: httpx2.Client, path: str, body: Any) -> None:
    assert check_envelope(http.post(path, json=body), 400)["message"] != ""


def test_the_earlier_systems_fields_are_there_exactly(tally_folder: Path, tally: LLM) -> None:
    models = dict.fromkeys(("pretrain", "distilled", "sft"), tally_folder)
    asked = {
        "prompt": "A bond pays",
        "max_new_tokens": 6,
        "temperature": 0,
        "topk": 5,
        "topp": 0.9,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "mode": "independent",
        "return_metrics": True,
    }
    params = SamplingParams(
        temperature=0, max_tokens=6, frequency_penalty=0.5, presence_penalty=0.5
    )
    with running(ServerSettings(models=models)) as server:
        server.wait_until_ready()
        with server.client() as http:
            welcome = http.get("/welcome").json()
            assert set(welcome) == {"name", "size", "context", "layers", "heads", "hidden_size"}
            assert (welcome["layers"], welcome["context"]) == (2, tally.context_length)
            for name in ("pretrain", "distilled"):
                answer = http.post("/generate", json={**asked, "model_name": name}).json()
                assert answer["generated_text"] == tally.generate("A bond pays", params)[0].text
            answer = http.post("/generate", json={**asked, "model_name": "sft"}).json()
            chat = tally.chat("A bond pays", params)
            assert answer["generated_text"] == chat.text
            metrics = answer["metrics"]
            assert set(metrics) == {
                "prompt_tokens",
                "generated_tokens",
                "total_time_sec",
                "generated_tokens_per_sec",
                "total_tokens_per_sec",
                "ttft_ms",
            }
            assert metrics["prompt_tokens"] == len(chat.prompt_token_ids)
            assert metrics["generated_tokens"] == len(chat.token_ids)
            assert 0 < metrics["ttft_ms"] <= metrics["total_time_sec"] * 1000 + 1
            quiet = http.post("/generate", json={"prompt": "A", "max_new_tokens": 1}).json()
            assert quiet["metrics"] is None
            check_envelope(http.post("/generate", json={**asked, "model_name": "no"}), 404)


def test_a_long_texts_pieces_hold_up_nobody(served: Running) -> None:
    """Others are answered all the while: the longest gap is a part of the whole time."""
    asked = {"prompt": "ab c" * 200_000, "with_pieces": True}
    with served.client() as http, served.client() as other, ThreadPoolExecutor(1) as pool:
        counted = pool.submit(http.post, "/tokenize", json=asked)
        moments = [time.monotonic()]
        while not counted.done():
            assert other.get("/health").status_code == 200
            moments.append(time.monotonic())
    tokens = counted.result().json()
    assert "".join(one["piece"] for one in tokens["tokens"]) == asked["prompt"]
    assert tokens["count"] == len(tokens["tokens"])
    longest = max(after - before for before, after in pairwise(moments))
    assert longest < (moments[-1] - moments[0]) / 2
