"""Answers in event loops are those of `LLM`, and nobody notices the others."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection

import pytest

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.async_llm import AsyncLLM
from tallyformer.inference.llm import LLM
from tallyformer.inference.outputs import Output, Piece, by_sample, joined
from tallyformer.inference.sampling_params import SamplingParams

CONTEXT = 32  # of the folders in conftest.py
PROMPTS = [[7] * n for n in (3, 9, 20, 31, 40)]
PARAMS = [
    SamplingParams(seed=seed, max_tokens=15 * seed, top_p=0.9, ignore_eos=True)
    for seed in range(1, 6)
]
ENDLESS = SamplingParams(seed=0, max_tokens=10**6, ignore_eos=True)


def _run(llm: LLM, use: Callable[[AsyncLLM], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncLLM(llm) as model:
            await use(model)

    asyncio.run(asyncio.wait_for(main(), 120))


async def _read(stream: AsyncGenerator[Piece, None]) -> list[Piece]:
    return [piece async for piece in stream]


def _alone(llm: LLM) -> list[Output]:
    return [llm.generate([p], s)[0] for p, s in zip(PROMPTS, PARAMS, strict=True)]


def test_streams_and_whole_answers_at_once_are_each_what_they_are_alone(llm: LLM) -> None:
    expected = _alone(llm)

    async def use(model: AsyncLLM) -> None:
        streams = [_read(model.stream(*asked)) for asked in zip(PROMPTS, PARAMS, strict=True)]
        answers = [model.generate(*asked) for asked in zip(PROMPTS, PARAMS, strict=True)]
        pieces, outputs = await asyncio.gather(asyncio.gather(*streams), asyncio.gather(*answers))
        assert [joined(*pair) for pair in zip(PROMPTS, pieces, strict=True)] == expected
        assert [output for [output] in outputs] == expected
        assert (model.running, model.waiting) == (0, 0)

    _run(llm, use)


def test_the_engine_pauses_after_the_first_tokens_of_answers_and_no_others(tally: LLM) -> None:
    params = SamplingParams(seed=1, max_tokens=9, ignore_eos=True, n=2)
    pauses: list[bool] = []

    async def use(model: AsyncLLM) -> None:
        await model.generate([7], params)
        [wake] = tally.client.after_step
        tally.client.after_step = {lambda: bool(pauses.append(wake()) or pauses[-1])}
        try:
            for _ in range(3):
                await model.generate([7], params)
        finally:
            tally.client.after_step = {wake}

    _run(tally, use)
    assert pauses.count(True) == 3
    assert len(pauses) >= 27


def test_samples_come_apart_and_are_those_of_the_llm(tally: LLM) -> None:
    params = SamplingParams(seed=1, max_tokens=20, ignore_eos=True, n=3)

    async def use(model: AsyncLLM) -> None:
        expected = tally.generate([[5, 6]], params)
        assert await model.generate([5, 6], params) == expected
        pieces = await _read(model.stream([5, 6], params))
        assert [joined([5, 6], sample) for sample in by_sample(pieces)] == expected

    _run(tally, use)


def test_an_answer_that_is_begun_comes_by_itself_whatever_another_receiver_does(llm: LLM) -> None:
    params = SamplingParams(seed=1, max_tokens=20, ignore_eos=True)
    asked = llm.asked([5, 6], params)

    async def use(model: AsyncLLM) -> None:
        pieces: list[Piece] = []
        whole, ended = asyncio.Event(), asyncio.Event()

        def fails(got: Piece | BaseException) -> None:
            raise ValueError

        def receive(got: Piece | BaseException) -> None:
            assert isinstance(got, Piece)
            pieces.append(got)
            if got.finish_reason:
                whole.set()

        asyncio.get_running_loop().set_exception_handler(lambda *_: ended.set())
        ends = [model.begin(asked, fails), model.begin(asked, receive)]
        await asyncio.gather(whole.wait(), ended.wait())
        for end in ends:
            end()
        assert joined([5, 6], pieces) == llm.generate([5, 6], params)[0]

    _run(llm, use)


def test_after_its_end_nothing_comes_of_an_answer(llm: LLM) -> None:
    async def use(model: AsyncLLM) -> None:
        pieces: list[Piece | BaseException] = []
        end = model.begin(llm.asked([5], ENDLESS), pieces.append)
        while not pieces:
            await asyncio.sleep(0.001)
        end()
        there = len(pieces)
        await _read(model.stream([5, 6], PARAMS[0]))
        assert len(pieces) == there
        assert (model.running, model.waiting) == (0, 0)

    _run(llm, use)


def test_conversations_are_answered_as_by_the_llm(tally: LLM) -> None:
    messages = [{"role": "user", "content": "What is profit?"}]

    async def use(model: AsyncLLM) -> None:
        expected = tally.chat(messages, PARAMS[0])
        assert await model.chat(messages, PARAMS[0]) == [expected]
        pieces = await _read(model.stream_chat(messages, PARAMS[0]))
        assert joined(expected.prompt_token_ids, pieces) == expected

    _run(tally, use)


def test_a_stream_that_is_closed_or_cancelled_leaves_the_engine(tally: LLM) -> None:
    async def use(model: AsyncLLM) -> None:
        stream = model.stream([5], ENDLESS)
        await anext(stream)
        task = asyncio.create_task(model.generate([6], ENDLESS))
        while model.running < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.aclose()
        assert model.waiting == 0
        await model.generate([7], SamplingParams(max_tokens=3))
        assert model.running == 0

    _run(tally, use)


def test_a_wrong_request_is_refused_at_the_call_and_touches_nobody(tally: LLM) -> None:
    async def use(model: AsyncLLM) -> None:
        task = asyncio.create_task(model.generate(PROMPTS[2], PARAMS[2]))
        await asyncio.sleep(0)
        with pytest.raises(InvalidRequestError, match="not in the vocabulary"):
            model.stream([10**6])
        with pytest.raises(InvalidRequestError, match="messages"):
            model.stream_chat([])
        assert await task == tally.generate([PROMPTS[2]], PARAMS[2])

    _run(tally, use)


def test_a_step_that_fails_reaches_all_who_wait_and_nobody_who_comes_later(
    tally_folder: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM.from_pretrained(tally_folder, runner="torch", device="cpu")  # type: ignore[arg-type]
    expected = llm.generate([PROMPTS[0]], PARAMS[0])[0]
    forward = llm.model.forward

    async def use(model: AsyncLLM) -> None:
        def fails(**kwargs: object) -> object:
            llm.model.forward = forward
            raise MemoryError

        streams = [model.stream([5], ENDLESS) for _ in range(3)]
        for stream in streams:
            await anext(stream)
        llm.model.forward = fails
        for stream in streams:
            with pytest.raises(MemoryError):
                await _read(stream)
        assert await model.generate(PROMPTS[0], PARAMS[0]) == [expected]
        assert (model.running, model.waiting) == (0, 0)

    _run(llm, use)


def test_closing_finishes_what_is_under_way_and_refuses_more(tally: LLM) -> None:
    async def main() -> None:
        model = AsyncLLM(tally)
        task = asyncio.create_task(model.generate(PROMPTS[4], PARAMS[4]))
        await asyncio.sleep(0)
        await model.close()
        assert await task == tally.generate([PROMPTS[4]], PARAMS[4])
        with pytest.raises(RuntimeError, match="closed"):
            await model.generate([5])
        await model.close()

    asyncio.run(asyncio.wait_for(main(), 120))


def test_closing_without_patience_breaks_off_what_is_under_way(tally: LLM) -> None:
    async def main() -> None:
        before = set(threading.enumerate())
        model = AsyncLLM(tally)
        task = asyncio.create_task(model.generate([5], ENDLESS))
        while not model.running:
            await asyncio.sleep(0)
        await model.close(drain=False)
        with pytest.raises(RuntimeError, match="closed"):
            await task
        tally.generate([[5]], SamplingParams(max_tokens=1))
        assert model.running == 0
        left = set(threading.enumerate()) - before
        assert not any(thread.name == "engine" for thread in left)

    asyncio.run(asyncio.wait_for(main(), 120))


def test_an_answer_that_is_left_gives_its_place_back_with_nothing_else_under_way(
    tally: LLM,
) -> None:
    async def main() -> None:
        async with AsyncLLM(tally) as model:
            async with contextlib.aclosing(model.stream([5], ENDLESS)) as pieces:
                await anext(pieces)
                assert model.running == 1
            while model.running:
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(main(), 120))


def test_the_llm_and_two_loops_share_one_engine(tally: LLM) -> None:
    expected = _alone(tally)
    found: list[Output] = []

    def another_loop(model: AsyncLLM) -> None:
        found.extend(asyncio.run(model.generate(PROMPTS[1], PARAMS[1])))

    async def use(model: AsyncLLM) -> None:
        stream = model.stream([5], ENDLESS)
        await anext(stream)
        threads = [
            threading.Thread(target=another_loop, args=(model,)),
            threading.Thread(target=lambda: found.extend(tally.generate([PROMPTS[2]], PARAMS[2]))),
        ]
        for thread in threads:
            thread.start()
        assert await model.generate(PROMPTS[0], PARAMS[0]) == expected[:1]
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await stream.aclose()
        assert sorted(map(str, found)) == sorted(map(str, expected[1:3]))

    _run(tally, use)


def test_engines_with_different_models_live_in_one_loop(tally: LLM, llama: LLM) -> None:
    async def main() -> None:
        async with AsyncLLM(tally) as first, AsyncLLM(llama) as second:
            outputs = await asyncio.gather(
                *(model.generate(PROMPTS[3], PARAMS[3]) for model in (first, second))
            )
        expected = [model.generate([PROMPTS[3]], PARAMS[3]) for model in (tally, llama)]
        assert outputs == expected
        assert outputs[0] != outputs[1]

    asyncio.run(asyncio.wait_for(main(), 120))


def test_a_step_wakes_the_loop_about_once_however_many_stream(tally: LLM) -> None:
    async def use(model: AsyncLLM) -> None:
        loop = asyncio.get_running_loop()
        wake_ups = 0
        call_soon_threadsafe = loop.call_soon_threadsafe

        def counted(*args: object) -> object:
            nonlocal wake_ups
            wake_ups += 1
            return call_soon_threadsafe(*args)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]
        params = SamplingParams(seed=1, max_tokens=30, ignore_eos=True)
        outputs = await asyncio.gather(*(model.generate([i], params) for i in range(60)))
        assert sum(len(output.token_ids) for [output] in outputs) == 60 * 30
        # 30 steps, some more where not all began in the first; not 1,800 pieces.
        assert wake_ups < 200

    _run(tally, use)


def test_a_place_is_free_again_however_late_its_leaving_is_heard_of(
    tally: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks anything more, so nobody else clears up."""
    leave = tally.client.leave

    def late(numbers: Collection[int]) -> None:
        time.sleep(0.2)
        leave(numbers)

    monkeypatch.setattr(tally.client, "leave", late)

    async def use(model: AsyncLLM) -> None:
        stream = model.stream([5], ENDLESS)
        await anext(stream)
        await stream.aclose()
        while model.running:
            await asyncio.sleep(0.01)

    _run(tally, use)
