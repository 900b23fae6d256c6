"""An answer has the same ids alone and in a crowd, whenever it arrives, however it is computed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.native.runner import NativeRunner
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer import Tokenizer

PROMPTS = 1000
CONTEXT = 32


def _engine(folder: Path, tokenizer: Tokenizer, dtype: str, threads: int) -> Engine:
    runner = NativeRunner.from_folder(
        folder, vocab_size=tokenizer.vocab_size, dtype=dtype, threads=threads
    )
    return Engine(runner, tokenizer, context=CONTEXT, eos_ids=[tokenizer.eot_id])


def _asked(tokenizer: Tokenizer) -> list[tuple[list[int], SamplingParams]]:
    """Greedy and seeded, short and longer than the window, some that fill it while they run."""
    source = random.Random(0)
    asked = []
    for number in range(PROMPTS):
        ids = [source.randrange(tokenizer.vocab_size) for _ in range(source.randrange(1, 40))]
        params = SamplingParams(
            max_tokens=source.randrange(1, 12),
            temperature=source.choice([0.0, 0.7, 1.3]),
            top_k=source.choice([0, 5, 50]),
            top_p=source.choice([0.8, 1.0]),
            frequency_penalty=source.choice([0.0, 0.5]),
            seed=number,
        )
        asked.append((ids, params))
    return asked


def _together(engine: Engine, asked: list[tuple[list[int], SamplingParams]]) -> list[list[int]]:
    """All of them, arriving in another order and between any two steps."""
    source = random.Random(1)
    order = list(range(len(asked)))
    source.shuffle(order)
    place: dict[int, int] = {}
    answers: list[list[int]] = [[] for _ in asked]
    open_ = 0
    while order or open_:
        for _ in range(min(len(order), source.choice([0, 1, 3, 20]))):
            which = order.pop()
            [number] = engine.add(*asked[which])
            place[number] = which
            open_ += 1
        for number, piece in engine.step().items():
            answers[place[number]] += piece.token_ids
            open_ -= piece.finish_reason is not None
    return answers


def _alone(engine: Engine, ids: list[int], params: SamplingParams) -> list[int]:
    engine.add(ids, params)
    answer: list[int] = []
    while True:
        for piece in engine.step().values():
            answer += piece.token_ids
            if piece.finish_reason:
                return answer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_a_thousand_answers_are_the_same_alone_and_in_a_crowd(
    tally_folder: Path, tokenizer: Tokenizer, dtype: str
) -> None:
    asked = _asked(tokenizer)
    together = _together(_engine(tally_folder, tokenizer, dtype, threads=2), asked)
    one = _engine(tally_folder, tokenizer, dtype, threads=1)
    assert together == [_alone(one, ids, params) for ids, params in asked]
