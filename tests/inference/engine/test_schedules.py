"""Whatever is computed when, with whom, in how many parts: an answer is what it is alone."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallyformer.inference.engine.client import EngineClient, EngineRequest
from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.outputs import Output, Piece, by_sample, joined
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer.tokenizer import Tokenizer

from .toy_runner import ToyRunner

CONTEXT = 12


def _only_even(ids: Sequence[int]) -> np.ndarray | None:
    """After every third id, and else anything."""
    return None if len(ids) % 3 else np.full(20, 0x55555555, np.uint32)


def _three_after_eight(text: str) -> list[int]:
    return [9, 9, 10] if len(text) in (2, 8) else []


class _Falling:
    """Each id that it was called with is less likely afterwards: it has a state."""

    def __init__(self) -> None:
        self._seen: list[int] = []

    def __call__(self, logits_V: np.ndarray, ids: Sequence[int]) -> np.ndarray:
        self._seen += ids[len(self._seen) :]
        logits_V[self._seen] -= 1.5
        return logits_V


PARAMS = [
    SamplingParams(temperature=0, max_tokens=2 * CONTEXT, ignore_eos=True),
    SamplingParams(temperature=0, max_tokens=30, ignore_eos=True, look_up=4),
    SamplingParams(seed=1, max_tokens=30, look_up=3, presence_penalty=1.0, logprobs=1),
    SamplingParams(seed=2, max_tokens=7, n=3, stop_token_ids=[6], min_tokens=4),
    SamplingParams(seed=3, max_tokens=3, prompt_logprobs=1, logprobs=0, n=2),
    SamplingParams(seed=4, max_tokens=0, prompt_logprobs=0),
    SamplingParams(seed=5, max_tokens=20, bad_token_ids=[6], token_mask=lambda: _only_even),
    SamplingParams(seed=6, max_tokens=15, forced_ids=lambda: _three_after_eight, logprobs=0),
    SamplingParams(seed=7, max_tokens=20, n=2, logits_processor=_Falling, look_up=2, logprobs=0),
    SamplingParams(seed=8, max_tokens=30, top_k=5, stop=["(((", "('"]),
]
PROMPTS = [[5] * n + [7] for n in (0, 2, 5, CONTEXT - 2, CONTEXT - 1, CONTEXT + 4)]
_ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from(PROMPTS),
        st.sampled_from(PARAMS),
        st.sampled_from([None, "a", "b"]),
        st.integers(0, 6),  # steps until the next one comes
        st.booleans(),  # whether it is given up then
        st.booleans(),  # whether it is one piece, at its end
    ),
    min_size=1,
    max_size=8,
)


def _engine(tokenizer: Tokenizer, slots: int = 64, chunk: int | None = None, **limits: int) -> Any:
    runner = ToyRunner(tokenizer.vocab_size, CONTEXT, slots=slots, chunk=chunk)
    engine = Engine(runner, tokenizer, context=CONTEXT, eos_ids=[tokenizer.eot_id], **limits)
    return engine, runner


def _answer(tokenizer: Tokenizer, prompt: list[int], params: SamplingParams) -> list[Output]:
    engine, _ = _engine(tokenizer)
    return EngineClient(engine).answer([EngineRequest(prompt, params)])


def _without_guesses(outputs: list[Output]) -> list[Output]:
    return [dataclasses.replace(output, guessed=0, accepted=0) for output in outputs]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrivals=_ARRIVALS,
    slots=st.integers(1, 5),
    chunk=st.none() | st.integers(1, CONTEXT),
    more=st.integers(0, 2 * CONTEXT),
    clears=st.sets(st.integers(0, 30), max_size=2),
)
def test_an_answer_does_not_depend_on_the_schedule(
    tokenizer: Tokenizer,
    arrivals: list[Any],
    slots: int,
    chunk: int | None,
    more: int,
    clears: set[int],
) -> None:
    engine, runner = _engine(tokenizer, slots, chunk, prefill_tokens=(chunk or CONTEXT) + more)
    pieces: dict[int, list[Piece]] = defaultdict(list)
    steps = 0

    def step() -> None:
        nonlocal steps
        if steps in clears:
            compute, runner.compute = runner.compute, _fails
            with pytest.raises(MemoryError):
                engine.step()
                raise MemoryError  # there was nothing to compute
            runner.compute = compute
        steps += 1
        for number, piece in engine.step().items():
            pieces[number].append(piece)

    kept = []
    for prompt, params, key, count, given_up, at_end in arrivals:
        numbers = engine.add(prompt, params, prefix_key=key, at_end=at_end)
        for _ in range(count):
            step()
        for number in numbers if given_up else ():
            engine.abort(number)
        if not given_up:
            kept.append((numbers, prompt, params, at_end))
    everything = [number for numbers, *_ in kept for number in numbers]
    while not all(pieces[n] and pieces[n][-1].finish_reason for n in everything):
        step()
    for numbers, prompt, params, at_end in kept:
        assert not at_end or all(len(pieces[number]) == 1 for number in numbers)
        found = [joined(prompt, pieces[number]) for number in numbers]
        assert _without_guesses(found) == _without_guesses(_answer(tokenizer, prompt, params))
    step()
    assert engine.running == 0


def _fails(work: object) -> None:
    raise MemoryError


def test_a_running_stream_has_an_id_in_every_step_however_long_the_prompts_that_come(
    tokenizer: Tokenizer,
) -> None:
    engine, runner = _engine(tokenizer, chunk=2)
    [stream] = engine.add([5], PARAMS[0])
    engine.step()
    for _ in range(5):
        engine.add([7] * (CONTEXT - 1), PARAMS[0])
    for _ in range(CONTEXT - 1):
        engine.step()
        counts = {w.number: len(w.ids) for w in runner.steps[-1]}
        assert counts.pop(stream) == 1
        assert sum(count for count in counts.values() if count > 1) <= 2


def test_samples_of_a_prompt_share_its_prefill(tokenizer: Tokenizer) -> None:
    params = SamplingParams(seed=1, max_tokens=1, n=4)
    prompt = [7] * (CONTEXT - 1)
    outputs = _answer(tokenizer, prompt, params)
    assert [output.index for output in outputs] == [0, 1, 2, 3]
    engine, runner = _engine(tokenizer)
    EngineClient(engine).answer([EngineRequest(prompt, params)])
    assert runner.forks == 3
    assert sorted(len(w.ids) for step in runner.steps for w in step) == [1, 1, 1, len(prompt)]


def test_the_first_sample_is_what_one_alone_is(tokenizer: Tokenizer) -> None:
    params = SamplingParams(seed=8, max_tokens=20, ignore_eos=True, n=3)
    samples = _answer(tokenizer, [5, 7], params)
    [alone] = _answer(tokenizer, [5, 7], dataclasses.replace(params, n=1))
    assert samples[0] == alone
    assert len({tuple(sample.token_ids) for sample in samples}) == 3


def test_what_prompts_begin_with_alike_is_computed_once_for_one_caller_and_never_for_two(
    tokenizer: Tokenizer,
) -> None:
    engine, runner = _engine(tokenizer)
    client = EngineClient(engine)
    params = SamplingParams(temperature=0, max_tokens=2)
    shared = list(range(20, 28))
    for key, fresh in (("a", 10), ("b", 10), ("a", 2), (None, 10), (None, 10), ("b", 2)):
        client.answer([EngineRequest([*shared, 5, 6], params, key)])
        assert len(runner.steps[-2][0].ids) == fresh if fresh == 10 else 1
    # All but the newest id, which is computed for its logits.
    firsts = [len(step[0].ids) for step in runner.steps[::2]]
    assert firsts == [10, 10, 1, 10, 10, 1]


def test_a_conversations_next_turn_computes_what_is_new(tokenizer: Tokenizer) -> None:
    engine, runner = _engine(tokenizer)
    client = EngineClient(engine)
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    [first] = client.answer([EngineRequest([7, 8, 9], params, "me")])
    client.answer([EngineRequest([7, 8, 9, *first.token_ids, 10], params, "me")])
    # The last id of an answer is never computed in it.
    assert runner.steps[3][0].ids == [first.token_ids[-1], 10]


def test_looking_up_takes_fewer_steps_for_the_same_answer(tokenizer: Tokenizer) -> None:
    prompt, plain = [5, 7, 9], SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)
    engine, runner = _engine(tokenizer)
    quick = dataclasses.replace(plain, look_up=4)
    [output] = EngineClient(engine).answer([EngineRequest(prompt, quick)])
    [expected] = _answer(tokenizer, prompt, plain)
    assert output.token_ids == expected.token_ids
    assert 0 < output.accepted < output.guessed
    # One id a step, and those that were guessed right.
    assert len(runner.steps) == 100 - output.accepted
    assert (expected.guessed, expected.accepted) == (0, 0)


def test_prompt_scores_are_of_each_id_after_those_before_it(tokenizer: Tokenizer) -> None:
    prompt = list(range(20, 29))
    whole, parts = (
        EngineClient(_engine(tokenizer, chunk=chunk)[0]).answer(
            [EngineRequest(prompt, SamplingParams(max_tokens=0, prompt_logprobs=2))]
        )[0]
        for chunk in (None, 2)
    )
    assert whole == parts
    assert whole.text == "" and whole.token_ids == [] and whole.finish_reason == "length"
    assert whole.prompt_logprobs[0] is None
    assert [score.id for score in whole.prompt_logprobs[1:] if score] == prompt[1:]
    [long] = _answer(tokenizer, [*prompt] * 2, SamplingParams(max_tokens=0, prompt_logprobs=0))
    # Of 18 ids the last 11 are seen, and the first of those has none before it.
    assert [score is None for score in long.prompt_logprobs] == [True] * 8 + [False] * 10


def test_no_end_is_drawn_before_the_least_number_of_tokens(tokenizer: Tokenizer) -> None:
    for seed in range(20):
        ends = SamplingParams(seed=seed, max_tokens=40, stop_token_ids=[6])
        [output] = _answer(tokenizer, [7], dataclasses.replace(ends, min_tokens=9))
        assert 6 not in output.token_ids[:9]


def test_forced_ids_follow_at_once_over_any_border(tokenizer: Tokenizer) -> None:
    params = PARAMS[7]
    text = ""
    for prompt in PROMPTS:
        [output] = _answer(tokenizer, prompt, params)
        text = output.text
        for at in range(len(output.token_ids) - 3):
            before = tokenizer.decode(output.token_ids[:at])
            if _three_after_eight(before):
                assert output.token_ids[at : at + 3] == [9, 9, 10]
        assert [one.id for one in output.logprobs] == output.token_ids
    assert text


def test_a_hook_that_fails_ends_its_own_answer_alone(tokenizer: Tokenizer) -> None:
    def fails(ids: Sequence[int]) -> np.ndarray:
        if len(ids) == 3:
            raise ZeroDivisionError
        return np.full(20, 0xFFFFFFFF, np.uint32)

    def nothing(ids: Sequence[int]) -> np.ndarray:
        return np.zeros(20, np.uint32)

    engine, _ = _engine(tokenizer)
    client = EngineClient(engine)
    other = client.stream(EngineRequest([5], PARAMS[0]))
    begun = next(other)
    with pytest.raises(ZeroDivisionError):
        client.answer(
            [EngineRequest([5], dataclasses.replace(PARAMS[0], token_mask=lambda: fails))]
        )
    with pytest.raises(ValueError, match="token_mask: no token may follow"):
        client.answer(
            [EngineRequest([5], dataclasses.replace(PARAMS[0], token_mask=lambda: nothing))]
        )
    with pytest.raises(ValueError, match="token_mask: 32 bits for"):
        short = dataclasses.replace(PARAMS[0], token_mask=lambda: lambda ids: np.ones(1, np.uint32))
        client.answer([EngineRequest([5], short)])
    with pytest.raises(ValueError, match="not an id of the vocabulary"):
        outside = dataclasses.replace(PARAMS[0], forced_ids=lambda: lambda text: [10**6])
        client.answer([EngineRequest([5], outside)])
    assert joined([5], [begun, *other]) == _answer(tokenizer, [5], PARAMS[0])[0]
    assert engine.running == 0


def test_when_everything_is_banned_the_request_is_refused(tokenizer: Tokenizer) -> None:
    everything = SamplingParams(bad_token_ids=range(tokenizer.vocab_size))
    with pytest.raises(ValueError, match="bad_token_ids: no token may follow"):
        _answer(tokenizer, [5], everything)


def test_samples_are_apart_in_a_stream(tokenizer: Tokenizer) -> None:
    params = SamplingParams(seed=2, max_tokens=9, ignore_eos=True, n=3)
    engine, _ = _engine(tokenizer)
    pieces = list(EngineClient(engine).stream(EngineRequest([5, 7], params)))
    found = [joined([5, 7], sample) for sample in by_sample(pieces)]
    assert found == _answer(tokenizer, [5, 7], params)
