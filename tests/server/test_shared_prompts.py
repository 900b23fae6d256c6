"""What is computed once: a prompt of several samples, and what one caller's prompts share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tallyformer.inference.llm import LLM
from tallyformer.server.keys import digest_of
from tallyformer.server.settings import ServerSettings

from . import test_completions as completions
from .conftest import Running, running
from .test_load import CHAT, SHORT, model_of, nothing_runs

QUESTION = "What is the profit of a share?"
BODY: dict[str, Any] = {
    **SHORT,
    "messages": [{"role": "user", "content": QUESTION}],
    "temperature": 1.0,
    "seed": 5,
}


KEYS = [f"key{number}" for number in range(8)]


class Prefill:
    """Ids of prompts that a server's model computes."""

    def __init__(self, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        runner = type(model_of(server).llm.llm.client._engine._runner)
        compute = runner.compute
        self._ids: list[int] = []

        def counted(this: Any, works: Any) -> Any:
            self._ids += [len(work.ids) for work in works if len(work.ids) > 1]
            return compute(this, works)

        monkeypatch.setattr(runner, "compute", counted)

    def count(self) -> int:
        """Since the last time."""
        total = sum(self._ids)
        self._ids.clear()
        return total


@pytest.fixture(scope="module")
def keys_served(tally_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("".join(f"{name} sha256:{digest_of(name)}\n" for name in KEYS))
    with running(ServerSettings(models={"tiny": tally_folder}, api_key_file=keys)) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="module")
def next_key() -> Callable[[], str]:
    """Gives keys that have asked nothing yet."""
    return iter(KEYS).__next__


def ask(server: Running, key: str = "x", path: str = CHAT, **changes: Any) -> Any:
    with server.client(headers={"authorization": f"Bearer {key}"}) as http:
        answer = http.post(path, json={**BODY, **changes})
        assert answer.status_code == 200, answer.text
        return answer


def words_of(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("stream", [True, False])
def test_samples_share_the_prefill_of_their_prompt(
    keys_served: Running,
    next_key: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    key, prefill = next_key(), Prefill(keys_served, monkeypatch)
    answer = ask(keys_served, key, n=8, stream=stream)
    prompt = ask(keys_served, key, path="/tokenize").json()["count"]
    assert prefill.count() == prompt
    assert stream or len(answer.json()["choices"]) == 8


def test_the_best_of_several_share_it_too(
    keys_served: Running, next_key: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefill = Prefill(keys_served, monkeypatch)
    body = {"prompt": "Zinsen und Kosten", "best_of": 6, "messages": None}
    answer = ask(keys_served, next_key(), path="/v1/completions", **body)
    assert prefill.count() == answer.json()["usage"]["prompt_tokens"]


def test_a_callers_next_turn_computes_only_what_is_new(
    keys_served: Running, next_key: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, prefill = next_key(), Prefill(keys_served, monkeypatch)
    first = words_of("Is a bond a share?")
    said = ask(keys_served, key, messages=first).json()
    prompt = said["usage"]["prompt_tokens"]
    assert prefill.count() == prompt
    assert ask(keys_served, key, messages=first).json()["choices"] == said["choices"]
    assert prefill.count() == 0  # the newest id, for its logits, is no prefill
    longer = [*first, {"role": "assistant", "content": "No"}, *words_of("So?")]
    whole = ask(keys_served, key, messages=longer).json()["usage"]["prompt_tokens"]
    assert 0 < prefill.count() <= whole - prompt + 1


def test_another_key_shares_nothing(
    keys_served: Running, next_key: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other, prefill = next_key(), next_key(), Prefill(keys_served, monkeypatch)
    said = ask(keys_served, mine).json()
    prompt = said["usage"]["prompt_tokens"]
    assert prefill.count() == prompt
    assert ask(keys_served, other).json()["choices"] == said["choices"]
    assert prefill.count() == prompt
    for name in (mine, other):
        ask(keys_served, name)
        assert prefill.count() == 0


def test_strangers_without_keys_share_nothing(
    tally_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServerSettings(models={"tiny": tally_folder}, allow_anonymous=True)
    with running(settings) as server:
        server.wait_until_ready()
        prefill = Prefill(server, monkeypatch)
        for _ in range(2):
            assert ask(server).json()["usage"]["prompt_tokens"] == prefill.count()


def test_samples_are_the_engines_and_the_first_is_the_one_alone(
    served: Running, tally: LLM
) -> None:
    four = ask(served, n=4)
    assert ask(served, n=1).json()["choices"][0] == four.json()["choices"][0]
    assert ask(served, n=4).json()["choices"] == four.json()["choices"]
    assert nothing_runs(served)


def test_every_sample_of_a_scored_prompt_has_its_numbers(served: Running) -> None:
    asked = {"n": 3, "echo": True, "logprobs": 1, "temperature": 1.0, "seed": 2}
    with served.client() as http:
        alone = completions.post(http, **{**asked, "n": 1}).json()["choices"][0]["logprobs"]
        whole = completions.post(http, **asked).json()["choices"]
        chunks = completions.stream(http, **asked)
    prompt = len(alone["tokens"]) - completions.ASK["max_tokens"]
    assert [choice["index"] for choice in whole] == [0, 1, 2]
    for choice in whole:
        numbers = choice["logprobs"]["token_logprobs"]
        assert numbers[:prompt] == alone["token_logprobs"][:prompt], json.dumps(numbers)
        parts = [
            part["logprobs"]["token_logprobs"]
            for chunk in chunks
            for part in chunk["choices"]
            if part["index"] == choice["index"] and part["logprobs"]
        ]
        assert [number for part in parts for number in part] == numbers
        texts = [
            part["text"]
            for chunk in chunks
            for part in chunk["choices"]
            if part["index"] == choice["index"]
        ]
        assert "".join(texts) == choice["text"]
