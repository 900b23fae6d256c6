"""Laws of the engine: what a sequence gets is its own, whoever else is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.engine.runner import Work
from tallyformer.inference.engine.torch_runner import TorchLogits, TorchRunner
from tallyformer.inference.llm import LLM
from tallyformer.inference.outputs import Output, Piece, joined
from tallyformer.inference.sampling_params import SamplingParams

CONTEXT = 32  # of the folders in conftest.py
PARAMS = [
    SamplingParams(temperature=0, max_tokens=12, ignore_eos=True),
    SamplingParams(seed=1, max_tokens=9, top_k=5, ignore_eos=True),
    SamplingParams(seed=2, max_tokens=2 * CONTEXT, top_p=0.8, ignore_eos=True),
    SamplingParams(seed=3, max_tokens=1, ignore_eos=True),
    SamplingParams(seed=4, max_tokens=20, min_p=0.1, frequency_penalty=1.0, stop=["e"]),
]
PROMPTS = [[7] * n for n in (1, 9, CONTEXT - 1, CONTEXT, CONTEXT + 5)]
_ARRIVAL = st.tuples(
    st.sampled_from(PROMPTS), st.sampled_from(PARAMS), st.integers(0, 8), st.booleans()
)


class Asked:
    """Several sequences of one engine, and the pieces so far."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.prompts: dict[int, list[int]] = {}
        self.pieces: dict[int, list[Piece]] = defaultdict(list)

    def add(self, prompt: list[int], params: SamplingParams) -> int:
        [number] = self.engine.add(prompt, params)
        self.prompts[number] = prompt
        return number

    def step(self) -> None:
        for number, piece in self.engine.step().items():
            self.pieces[number].append(piece)

    def finished(self, number: int) -> bool:
        return bool(self.pieces[number]) and self.pieces[number][-1].finish_reason is not None

    def output(self, number: int) -> Output:
        while not self.finished(number):
            self.step()
        return joined(self.prompts[number], self.pieces[number])


@pytest.fixture(scope="module")
def alone() -> dict[Any, Output]:
    return {}


def _alone(known: dict[Any, Output], llm: LLM, prompt: list[int], params: SamplingParams) -> Output:
    key = (type(llm.model), len(prompt), params)
    if key not in known:
        [known[key]] = llm.generate([prompt], params)
    return known[key]


@settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    arrivals=st.lists(_ARRIVAL, min_size=2, max_size=8),
    slots=st.integers(1, 5),
    prefill_tokens=st.sampled_from([CONTEXT, 3 * CONTEXT]),
)
def test_a_sequence_gets_in_any_company_what_it_gets_alone(
    llm: LLM,
    make_engine: Callable[..., Engine],
    alone: dict[Any, Output],
    arrivals: list[tuple[list[int], SamplingParams, int, bool]],
    slots: int,
    prefill_tokens: int,
) -> None:
    """They come some steps one after another, and some are given up after the next one came."""
    asked = Asked(make_engine(slots=slots, prefill_tokens=prefill_tokens))
    kept: list[tuple[int, SamplingParams]] = []
    given_up: int | None = None
    for prompt, params, steps, stays in arrivals:
        number = asked.add(prompt, params)
        for _ in range(steps):
            asked.step()
        if given_up is not None:
            asked.engine.abort(given_up)
        given_up = None if stays else number
        if stays:
            kept.append((number, params))
    for number, params in kept:
        assert asked.output(number) == _alone(alone, llm, asked.prompts[number], params)


def test_pieces_come_as_soon_as_text_is_certain_and_not_before(
    make_engine: Callable[..., Engine], llm: LLM
) -> None:
    asked = Asked(make_engine())
    number = asked.add(llm.tokenizer.encode("Zinsen für"), PARAMS[2])
    steps = 0
    while not asked.finished(number):
        asked.step()
        steps += 1
        ids = [i for piece in asked.pieces[number] for i in piece.token_ids]
        assert len(ids) <= steps
        assert all(piece.text for piece in asked.pieces[number][:-1])
    assert steps == len(ids) == 2 * CONTEXT


def test_a_new_one_joins_between_two_steps_and_takes_the_place_of_an_aborted_one(
    make_engine: Callable[..., Engine],
) -> None:
    asked = Asked(make_engine(slots=1))
    first, second = (asked.add([5, 6], PARAMS[0]) for _ in range(2))
    for _ in range(4):
        asked.step()
    assert asked.pieces[first] and not asked.pieces[second]
    asked.engine.abort(first)
    before = len(asked.pieces[first])
    assert len(asked.output(second).token_ids) == 12
    assert len(asked.pieces[first]) == before


def test_aborting_what_is_not_there_and_stepping_without_work_do_nothing(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine()
    assert engine.step() == {}
    [number] = engine.add([5], PARAMS[3])
    engine.abort(number)
    engine.abort(number)
    engine.abort(99)
    assert engine.step() == {}


class FailsOnce(TorchRunner):
    """Runs out of memory in the middle of one step: the cache already has the new column."""

    def __init__(self, llm: LLM, step: int) -> None:
        super().__init__(llm.model, llm.tokenizer.vocab_size, slots=2)
        self._countdown = step

    def compute(self, work: Sequence[Work]) -> TorchLogits:
        logits = super().compute(work)
        self._countdown -= any(w.start for w in work)
        if self._countdown == 0:
            self._countdown = -1
            raise MemoryError
        return logits


@pytest.mark.parametrize("step", [1, 7, 40])
def test_a_step_that_fails_can_be_taken_again(
    make_engine: Callable[..., Engine], llm: LLM, step: int
) -> None:
    asked = Asked(make_engine(FailsOnce(llm, step)))
    numbers = [asked.add(PROMPTS[i], PARAMS[i]) for i in (1, 2, 4)]
    with pytest.raises(MemoryError):
        for number in numbers:
            asked.output(number)
    for number, i in zip(numbers, (1, 2, 4), strict=True):
        assert asked.output(number) == llm.generate([PROMPTS[i]], PARAMS[i])[0]
