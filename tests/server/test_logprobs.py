"""Log-probabilities in both shapes, scoring, and what else the engine can be told."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx2
import pytest

from tallyformer.inference.llm import LLM
from tallyformer.inference.outputs import FinishReason, FirstSpace, Piece, TokenLogprob
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.server.token_logprobs import ChatLogprobs

from . import test_chat as chat
from . import test_completions as completions
from .test_errors import check_envelope

TEXT = "Zinsen für Jürgen: 5 €"


def params(**changes: Any) -> SamplingParams:
    values = {"temperature": 0, "max_tokens": 6, "ignore_eos": True, **changes}
    return SamplingParams(**values)


def test_a_chats_tokens_have_true_bytes_and_the_engines_numbers(
    http: httpx2.Client, tally: LLM
) -> None:
    body = chat.answer_of(http, logprobs=True, top_logprobs=3)
    content = body["choices"][0]["logprobs"]["content"]
    output = tally.chat(chat.QUESTION, params(max_tokens=8, logprobs=3))
    assert len(content) == 8
    for entry, expected in zip(content, output.logprobs, strict=True):
        assert math.isclose(entry["logprob"], expected.logprob, rel_tol=1e-5, abs_tol=1e-5)
        spelled = [tally.tokenizer.bytes_of(token) for token, _ in expected.alternatives]
        if entry is content[0]:
            spelled = [one.lstrip() for one in spelled]
        assert [bytes(top["bytes"]) for top in entry["top_logprobs"]] == spelled
    said = b"".join(bytes(entry["bytes"]) for entry in content).decode(errors="replace")
    assert said == body["choices"][0]["message"]["content"]
    bare = chat.answer_of(http, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [entry["top_logprobs"] for entry in bare] == [[]] * 8
    assert [entry["logprob"] for entry in bare] == [entry["logprob"] for entry in content]


def test_a_chats_stream_has_the_same_tokens(http: httpx2.Client) -> None:
    whole = chat.answer_of(http, logprobs=True)["choices"][0]["logprobs"]["content"]
    chunks = chat.events(http, logprobs=True)
    parts = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [entry for part in parts if part for entry in part["content"]] == whole


SPACES = ("", " ", "\u00a0", "\u3000", " \u3000\n\u2003", "\u001c\u0085 ")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("more", ["A bond", "€", "\u200b", ""])
def test_the_tokens_joined_are_the_answers_text_whatever_white_space_it_begins_with(
    tally: LLM, space: str, more: str
) -> None:
    ids = tally.tokenizer.encode(space + more)
    decoder, left_out = tally.tokenizer.stream_decoder(), FirstSpace()
    shape = ChatLogprobs(tally.tokenizer, from_start=True)
    said, spelled = "", b""
    for number, token_id in enumerate(ids):
        scored = TokenLogprob(token_id, -1.0, ((token_id, -1.0),))
        last = number == len(ids) - 1
        text = decoder.push(token_id) + (decoder.finish() if last else "")
        reason: FinishReason | None = "length" if last else None
        piece = Piece(text=text, token_ids=[token_id], finish_reason=reason, logprobs=[scored])
        kept = left_out.without(piece)
        if kept is not None:
            entries = shape.entries(0, kept.logprobs)
            assert all(e["top_logprobs"][0]["bytes"] == e["bytes"] for e in entries)
            spelled += b"".join(bytes(entry["bytes"]) for entry in entries)
            said += kept.text
    assert spelled.decode() == said == more


def test_a_continued_answer_keeps_the_space_of_its_first_token(http: httpx2.Client) -> None:
    begun = [*chat.QUESTION, {"role": "assistant", "content": "A bond"}]
    choice = chat.answer_of(http, messages=begun, logprobs=True)["choices"][0]
    spelled = b"".join(bytes(entry["bytes"]) for entry in choice["logprobs"]["content"])
    assert spelled.decode(errors="replace") == choice["message"]["content"]


def score(http: httpx2.Client, **changes: Any) -> dict[str, Any]:
    body = completions.post(http, echo=True, logprobs=2, **changes)
    assert body.status_code == 200, body.text
    choice: dict[str, Any] = body.json()["choices"][0]
    return choice


@pytest.mark.parametrize("most", [0, 1, 4])
def test_echo_gives_the_prompts_numbers_too_and_the_first_has_none(
    http: httpx2.Client, tally: LLM, most: int
) -> None:
    choice = score(http, prompt=TEXT, max_tokens=most)
    logprobs = choice["logprobs"]
    ids = tally.tokenizer.encode(TEXT)
    assert {len(values) for values in logprobs.values()} == {len(ids) + most}
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    wanted = params(max_tokens=most, prompt_logprobs=2, logprobs=2)
    output = tally.generate(ids, wanted)[0]
    expected = [*output.prompt_logprobs[1:], *output.logprobs]
    for number, entry in zip(logprobs["token_logprobs"][1:], expected, strict=True):
        assert entry is not None
        assert math.isclose(number, entry.logprob, rel_tol=1e-5, abs_tol=1e-5)
    assert choice["text"] == TEXT + output.text
    tops = zip(logprobs["tokens"][1:], logprobs["top_logprobs"][1:], strict=True)
    assert all(token in top and 2 <= len(top) <= 3 for token, top in tops)


@pytest.mark.parametrize("between", [b"", b"\xb1", b"\xc3", b"\xc3\xc3", b"\xf0\x9f"])
def test_offsets_point_to_the_tokens_in_the_text(
    http: httpx2.Client, tally: LLM, between: bytes
) -> None:
    """Also behind bytes that are no text."""
    of_bytes = {tally.tokenizer.bytes_of(i): i for i in range(tally.tokenizer.vocab_size)}
    ids = tally.tokenizer.encode(TEXT)
    broken = [of_bytes[between[n : n + 1]] for n in range(len(between))]
    choice = score(http, prompt=[*ids, *broken, *ids[:3]], max_tokens=3)
    offsets, tokens = choice["logprobs"]["text_offset"], choice["logprobs"]["tokens"]
    assert offsets == sorted(offsets)
    for offset, token in zip(offsets, tokens, strict=True):
        if not token.startswith("bytes:"):
            assert choice["text"][offset:].startswith(token)


def test_scoring_makes_no_token(http: httpx2.Client, tally: LLM) -> None:
    body = completions.post(http, prompt=TEXT, echo=True, max_tokens=0).json()
    assert body["choices"][0]["text"] == TEXT
    assert body["usage"]["completion_tokens"] == 0
    assert body["choices"][0]["finish_reason"] == "length"
    assert completions.texts(http, prompt=TEXT, max_tokens=0) == [""]
    assert score(http, prompt=TEXT, max_tokens=0)["logprobs"]["tokens"]


def test_batches_of_ids_are_scored_as_a_harness_asks_for_them(
    http: httpx2.Client, tally: LLM
) -> None:
    prompts = [tally.tokenizer.encode(text) for text in (TEXT, "A bond pays", "Profit")]
    ids = [[tally.tokenizer.eot_id, *prompt] for prompt in prompts]
    asked = {"prompt": ids, "max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234}
    choices = completions.post(http, **asked).json()["choices"]
    for prompt, choice in zip(ids, choices, strict=True):
        alone = score(http, prompt=prompt, max_tokens=0)["logprobs"]["token_logprobs"]
        assert choice["logprobs"]["token_logprobs"][:-1] == alone
        assert len(choice["logprobs"]["tokens"]) == len(prompt) + 1


def test_a_stream_scores_alike(http: httpx2.Client) -> None:
    whole = score(http, prompt=TEXT, max_tokens=4)
    chunks = completions.stream(http, prompt=TEXT, max_tokens=4, echo=True, logprobs=2)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    for name, values in whole["logprobs"].items():
        parts = [choice["logprobs"][name] for choice in choices if choice["logprobs"]]
        assert [value for part in parts for value in part] == values, name


def test_best_of_gives_the_most_probable(http: httpx2.Client) -> None:
    asked = {"temperature": 5, "top_k": 0, "top_p": 1, "seed": 7, "logprobs": 0}
    every = completions.post(http, n=6, **asked).json()["choices"]
    means = [sum(c["logprobs"]["token_logprobs"]) / 6 for c in every]
    order = sorted(range(6), key=lambda number: -means[number])
    body = completions.post(http, n=2, best_of=6, **asked).json()
    assert [c["text"] for c in body["choices"]] == [every[number]["text"] for number in order[:2]]
    assert body["usage"]["completion_tokens"] == 36
    assert body["choices"][0]["logprobs"] == every[order[0]]["logprobs"] | {
        "text_offset": body["choices"][0]["logprobs"]["text_offset"]
    }
    plain = completions.post(http, n=1, best_of=6, **{**asked, "logprobs": None}).json()
    assert plain["choices"][0]["text"] == every[order[0]]["text"]
    assert plain["choices"][0]["logprobs"] is None


def test_a_bias_forces_and_forbids(http: httpx2.Client, tally: LLM) -> None:
    wanted = tally.tokenizer.encode("e")[0]
    forced = completions.texts(http, logit_bias={str(wanted): 100})
    assert forced == ["e" * 6]
    first = tally.generate("A bond pays", params(max_tokens=1))[0].token_ids[0]
    banned = completions.post(http, logit_bias={str(first): -100}, logprobs=0, max_tokens=1).json()
    named = banned["choices"][0]["logprobs"]["tokens"][0]
    assert named.encode() != tally.tokenizer.bytes_of(first)


def test_the_engines_other_settings_reach_it(http: httpx2.Client, tally: LLM) -> None:
    for changes in ({"repetition_penalty": 1.5}, {"min_tokens": 6, "ignore_eos": False}):
        expected = tally.generate("A bond pays", params(**changes))[0].text
        assert completions.texts(http, **changes) == [expected]


@pytest.mark.parametrize(
    ("ask", "field", "value"),
    [
        (chat, "top_logprobs", 3),
        (chat, "logprobs", 3),
        (completions, "logprobs", 21),
        (completions, "logprobs", True),
        (completions, "best_of", 99),
        (completions, "best_of", 0),
        (chat, "logit_bias", {"a": 1}),
        (chat, "logit_bias", {"1": 101}),
        (chat, "logit_bias", {"999999": 1}),
        (chat, "logit_bias", [1]),
        (chat, "repetition_penalty", 0),
        (chat, "min_tokens", -1),
    ],
)
def test_what_cannot_be_given_is_a_400_that_names_the_field(
    http: httpx2.Client, ask: Any, field: str, value: Any
) -> None:
    detail = check_envelope(ask.post(http, **{field: value}), 400)
    assert str(detail["param"]).partition(".")[0] == field, json.dumps(detail)


def test_the_best_of_a_stream_is_refused(http: httpx2.Client) -> None:
    answer = completions.post(http, best_of=3, stream=True)
    assert check_envelope(answer, 400)["param"] == "best_of"
