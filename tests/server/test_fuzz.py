"""Any request: its stream is the whole answer in parts, and whoever leaves frees the slot."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from typing import Any

import httpx2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Running, until
from .test_load import CHAT, asked, nothing_runs

EXAMPLES = int(os.environ.get("TALLYFORMER_FUZZ", "25"))
"""Of each law; `make fuzz` tries many more."""
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

COMPLETIONS = "/v1/completions"
TEXTS = st.one_of(
    st.text(max_size=24),
    st.sampled_from(
        ["<|user|>", "<|assistant|> x", "🙂🙂", "a\u0301", "\x00", "\u202e", "Zinsen für 5 €", " "]
    ),
)
STOPS = st.lists(
    st.one_of(st.text(min_size=1, max_size=3), st.sampled_from(["e", " t", "\ufffd", "🙂"])),
    max_size=4,
)
SAMPLING = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**31), "max_tokens": st.integers(1, 40)},
    optional={
        "n": st.integers(1, 3),
        "stop": STOPS,
        "temperature": st.sampled_from([0, 0.7, 1, 5]),
        "top_k": st.integers(0, 50),
        "top_p": st.floats(0.01, 1),
        "presence_penalty": st.floats(-2, 2),
        "repetition_penalty": st.floats(0.5, 2),
        "ignore_eos": st.booleans(),
        "min_tokens": st.integers(0, 5),
        "user": st.none() | TEXTS,
    },
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS}
    ),
    min_size=1,
    max_size=5,
)
ASKED = st.one_of(
    st.tuples(st.just(CHAT), st.fixed_dictionaries({"messages": MESSAGES})),
    st.tuples(
        st.just(COMPLETIONS),
        st.fixed_dictionaries({"prompt": TEXTS}, optional={"echo": st.booleans()}),
    ),
)


def choices_of(path: str, text: str) -> dict[int, tuple[str, str]]:
    """Text and reason of each choice of a stream, whose framing is checked."""
    *events, end, rest = text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    texts: dict[int, str] = defaultdict(str)
    reasons: dict[int, str] = {}
    for event in events:
        if event.startswith(":"):
            continue
        assert event.startswith("data: {") and "\n" not in event
        for choice in json.loads(event.removeprefix("data: "))["choices"]:
            said = choice["delta"].get("content", "") if path == CHAT else choice["text"]
            assert said or choice["finish_reason"] or "role" in choice["delta"], "an empty chunk"
            assert choice["index"] not in reasons, "text after the end"
            texts[choice["index"]] += said
            if choice["finish_reason"]:
                assert not said
                reasons[choice["index"]] = choice["finish_reason"]
    assert not reasons.keys() ^ texts.keys()
    return {index: (texts[index], reasons[index]) for index in sorted(texts)}


@fuzzed
@given(asked=ASKED, sampling=SAMPLING)
def test_a_stream_is_the_whole_answer_in_parts(
    http: httpx2.Client, asked: tuple[str, dict[str, Any]], sampling: dict[str, Any]
) -> None:
    path, body = asked[0], {"model": "tiny", **asked[1], **sampling}
    whole, streamed = (http.post(path, json={**body, "stream": s}) for s in (False, True))
    assert whole.status_code == streamed.status_code in (200, 400)
    if whole.status_code == 400:
        assert whole.json() == streamed.json()
        return
    said = {
        c["index"]: (c["message"]["content"] if path == CHAT else c["text"], c["finish_reason"])
        for c in whole.json()["choices"]
    }
    assert choices_of(path, streamed.text) == said
    for text, _ in said.values():
        answer = text.removeprefix(body.get("prompt", "")) if body.get("echo") else text
        assert not any(stop in answer for stop in sampling.get("stop", ()))


@fuzzed
@given(
    messages=MESSAGES.filter(lambda given: given[-1]["role"] == "user"),
    sampling=SAMPLING,
    stream=st.booleans(),
    read=st.integers(0, 400),
)
def test_whoever_leaves_frees_the_slot(
    served: Running,
    messages: list[dict[str, str]],
    sampling: dict[str, Any],
    stream: bool,
    read: int,
) -> None:
    body = {"model": "tiny", "messages": messages, **sampling}
    body |= {"max_tokens": 10_000_000, "ignore_eos": True, "stream": stream, "stop": []}
    with asked(served, body) as connection:
        if stream and read:
            assert connection.recv(read)
    until(lambda: nothing_runs(served))
