"""Callers that share an engine do not notice each other, in one thread or in several."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tallyformer.inference.engine.client import EngineClient, EngineRequest
from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.engine.runner import Work
from tallyformer.inference.engine.torch_runner import TorchLogits, TorchRunner
from tallyformer.inference.llm import LLM
from tallyformer.inference.outputs import Piece, joined
from tallyformer.inference.sampling_params import SamplingParams

PROMPTS = [[7] * n for n in (3, 9, 20, 31, 40)]
PARAMS = [
    SamplingParams(seed=seed, max_tokens=15 * seed, top_p=0.9, ignore_eos=True)
    for seed in range(1, 6)
]


class Recording(TorchRunner):
    """Which sequences each decoding step computed; something may happen within it."""

    def __init__(self, llm: LLM) -> None:
        super().__init__(llm.model, llm.tokenizer.vocab_size)
        self.decoded: list[set[int]] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def compute(self, work: Sequence[Work]) -> TorchLogits:
        logits = super().compute(work)
        if decoded := {w.number for w in work if w.start}:
            self.decoded.append(decoded)
            self.meanwhile()
        return logits


@pytest.fixture
def runner(llm: LLM) -> Recording:
    return Recording(llm)


@pytest.fixture
def client(runner: Recording, make_engine: Callable[..., Engine]) -> EngineClient:
    return EngineClient(make_engine(runner))


def _check(llm: LLM, i: int, pieces: list[Piece]) -> None:
    assert joined(PROMPTS[i], pieces) == llm.generate([PROMPTS[i]], PARAMS[i])[0]


def test_streams_read_in_turn_are_each_what_they_are_alone(
    llm: LLM, runner: Recording, client: EngineClient
) -> None:
    streams = [client.stream(EngineRequest(PROMPTS[i], PARAMS[i])) for i in range(5)]
    rounds = list(itertools.zip_longest(*streams))
    for i in range(5):
        _check(llm, i, [pieces[i] for pieces in rounds if pieces[i] is not None])
    assert {0, 1, 2, 3, 4} in runner.decoded


def test_an_answer_in_the_middle_of_a_stream_changes_neither(
    llm: LLM, client: EngineClient
) -> None:
    stream = client.stream(EngineRequest(PROMPTS[2], PARAMS[2]))
    first = next(stream)
    assert client.answer([EngineRequest(PROMPTS[4], PARAMS[4])]) == llm.generate(
        [PROMPTS[4]], PARAMS[4]
    )
    _check(llm, 2, [first, *stream])


def _stopped(stream: Iterator[Piece]) -> None:
    next(stream)
    stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "leave", [_stopped, next, lambda stream: None], ids=["closed", "dropped", "never begun"]
)
def test_a_stream_that_is_left_is_not_computed_on(
    llm: LLM, runner: Recording, client: EngineClient, leave: Callable[[Any], Any]
) -> None:
    leave(client.stream(EngineRequest(PROMPTS[4], PARAMS[4])))
    before = len(runner.decoded)
    _check(llm, 0, list(client.stream(EngineRequest(PROMPTS[0], PARAMS[0]))))
    assert all(len(numbers) == 1 for numbers in runner.decoded[before:])


def test_a_stream_may_be_collected_within_a_step(
    llm: LLM, runner: Recording, client: EngineClient
) -> None:
    """As Python's collector may close a generator at any place of the same thread."""
    left = [client.stream(EngineRequest(PROMPTS[4], PARAMS[4]))]
    next(left[0])
    runner.meanwhile = left.clear
    _check(llm, 1, list(client.stream(EngineRequest(PROMPTS[1], PARAMS[1]))))
    assert [len(numbers) for numbers in runner.decoded[-3:]] == [1, 1, 1]


def test_a_callers_error_does_not_touch_the_others(
    llm: LLM, runner: Recording, client: EngineClient
) -> None:
    def fail() -> None:
        runner.meanwhile = lambda: None
        raise MemoryError

    stream = client.stream(EngineRequest(PROMPTS[3], PARAMS[3]))
    first = next(stream)
    runner.meanwhile = fail
    with pytest.raises(MemoryError):
        client.answer([EngineRequest(PROMPTS[0], PARAMS[0])])
    before = len(runner.decoded)
    _check(llm, 3, [first, *stream])
    assert all(len(numbers) == 1 for numbers in runner.decoded[before:])


def test_threads_are_answered_as_if_alone(llm: LLM, client: EngineClient) -> None:
    found: dict[int, list[Piece]] = {}

    def ask(i: int) -> None:
        found[i] = list(client.stream(EngineRequest(PROMPTS[i], PARAMS[i])))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(5):
        _check(llm, i, found[i])
