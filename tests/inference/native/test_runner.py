"""Laws of the native runner: the model's logits, and the same bits however a row is computed."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tallyformer.inference.engine.runner import Work
from tallyformer.inference.native.runner import WARM_SLOTS, NativeRunner
from tallyformer.model.shape import shape_of

from .conftest import DTYPES, Made, model_logits

# Of the largest logit. Weights of 8 and 4 bits have errors of about 1/250 and 1/15 each.
_TOLERANCE = {"float32": 1e-5, "bfloat16": 0.03, "int8": 0.06, "int4": 0.6}
_IDS = [int(i) for i in np.random.default_rng(0).integers(0, 77, 48)]


def _alone(runner: NativeRunner, ids: list[int]) -> np.ndarray:
    logits = runner.compute([Work(1000, 0, ids, len(ids))]).copy()
    runner.release([1000])
    return logits


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_are_the_models(made: Made, kernel: str, dtype: str) -> None:
    expected = model_logits(made.model, _IDS)
    found = _alone(made.runner(dtype, kernels=kernel), _IDS)
    assert np.abs(found - expected).max() <= _TOLERANCE[dtype] * np.abs(expected).max()


def test_float32_logits_are_within_1e_4_of_the_models(made: Made) -> None:
    assert np.abs(_alone(made.runner(), _IDS) - model_logits(made.model, _IDS)).max() < 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_however_its_prompt_is_cut(
    made: Made, kernel: str, dtype: str
) -> None:
    runner = made.runner(dtype, kernels=kernel)
    whole = _alone(runner, _IDS)
    for cuts in ([0, 48], [0, 1, 48], [0, 7, 8, 9, 30, 48], list(range(49))):
        parts = [
            runner.compute([Work(1, a, _IDS[a:b], b - a)]).copy()
            for a, b in itertools.pairwise(cuts)
        ]
        assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("others", [1, 2, 3, 7, 8, 15, 63])
def test_a_row_has_the_same_bits_among_others(default: Made, dtype: str, others: int) -> None:
    runner = default.runner(dtype)
    whole = _alone(runner, _IDS)
    crowd = [Work(n, 0, _IDS[: 1 + n % 40], 1) for n in range(others)]
    runner.compute([*crowd, Work(99, 0, _IDS[:20], 1)])
    for place in range(20, 30):
        at = place % (others + 1)
        work = [Work(n, 1 + n % 40, [3], 1) for n in range(others)]
        work.insert(at, Work(99, place, [_IDS[place]], 1))
        assert np.array_equal(runner.compute(work)[at], whole[place])


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(made: Made, dtype: str) -> None:
    one, many = made.runner(dtype, threads=1), made.runner(dtype, threads=5)
    assert np.array_equal(_alone(one, _IDS), _alone(many, _IDS))


def test_only_the_wanted_logits_are_computed_and_they_are_the_same(made: Made) -> None:
    runner = made.runner()
    whole = _alone(runner, _IDS)
    assert runner.compute([Work(1, 0, _IDS[:10], 0)]).shape[0] == 0
    work = [Work(1, 10, _IDS[10:20], 3), Work(2, 0, _IDS[:5], 0), Work(3, 0, _IDS[:6], 1)]
    assert np.array_equal(runner.compute(work), whole[[17, 18, 19, 5]])


def test_what_was_kept_beyond_the_start_is_forgotten(default: Made) -> None:
    runner = default.runner()
    runner.compute([Work(1, 0, _IDS, 1)])
    again = runner.compute([Work(1, 10, [9, 8, 7], 3)]).copy()
    assert np.array_equal(again, _alone(runner, [*_IDS[:10], 9, 8, 7])[10:])


def test_released_places_are_used_again(default: Made) -> None:
    runner = default.runner(slots=2)
    whole = _alone(runner, _IDS)
    for number in range(0, 20, 2):
        runner.compute([Work(number, 0, _IDS[:30], 1), Work(number + 1, 0, _IDS[:3], 1)])
        assert np.array_equal(runner.compute([Work(number, 30, [_IDS[30]], 1)])[0], whole[30])
        runner.release([number, number + 1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 47])
def test_a_fork_continues_like_its_original(made: Made, dtype: str, length: int) -> None:
    runner = made.runner(dtype)
    whole = _alone(runner, _IDS)
    runner.compute([Work(1, 0, _IDS, 1)])
    # A place that another sequence has used.
    runner.compute([Work(2, 0, _IDS[::-1], 1)])
    runner.release([2])
    runner.fork(1, 3, length)
    left = _IDS[length:]
    assert np.array_equal(runner.compute([Work(3, length, left, len(left))]), whole[length:])
    assert np.array_equal(runner.compute([Work(1, 40, _IDS[40:], 8)]), whole[40:])


def test_two_models_live_in_one_process(made: Made, default: Made) -> None:
    one, other = made.runner(), default.runner("int8")
    expected = _alone(one, _IDS), _alone(other, _IDS)
    for _ in range(3):
        assert np.array_equal(_alone(one, _IDS), expected[0])
        assert np.array_equal(_alone(other, _IDS), expected[1])


def test_a_model_without_torch_weights_on_disk_is_the_same_in_bfloat16(default: Made) -> None:
    """Weights that are stored as bfloat16 are taken as they are."""
    half = {
        key: value.to(torch.bfloat16).view(torch.uint16).numpy()
        for key, value in default.model.state_dict().items()
    }
    shape = shape_of(default.model.config.to_dict())
    stored = NativeRunner(shape, half.__getitem__, dtype="bfloat16", vocab_size=shape.vocab)
    rounded = default.model.to(torch.bfloat16).to(torch.float32)
    try:
        tensors = {key: value.numpy() for key, value in rounded.state_dict().items()}
        wide = NativeRunner(shape, tensors.__getitem__, dtype="bfloat16", vocab_size=shape.vocab)
        assert np.array_equal(_alone(stored, _IDS), _alone(wide, _IDS))
    finally:
        default.model.float()


def test_memory_of_slots_is_given_back_once_most_are_free(made: Made) -> None:
    runner = made.runner(slots=16)
    alone = _alone(runner, _IDS)
    runner.compute([Work(n, 0, [n + 1, 2]) for n in range(16)])
    runner.release(range(11))
    assert (len(runner._held), len(runner._rows)) == (16, 16)
    runner.release([11])
    assert (len(runner._held), len(runner._rows)) == (4 + WARM_SLOTS, 0)
    # What stays is as it was, and slots that were given back are used again.
    kept = runner.compute([Work(12, 2, [9])]).copy()
    assert np.array_equal(_alone(runner, [13, 2, 9])[-1], kept[0])
    for n in range(11):
        runner.compute([Work(n, 0, [n + 1, 2])])
    assert np.array_equal(_alone(runner, _IDS), alone)


def test_a_slot_takes_memory_for_what_it_keeps_and_not_for_the_whole_context() -> None:
    shape = shape_of(
        {
            "model_type": "llama",
            "vocab_size": 40,
            "hidden_size": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "head_dim": 64,
            "intermediate_size": 16,
            "max_position_embeddings": 1 << 20,
        }
    )
    tensors = {name: np.ones(size, np.float32) for name, size in shape.tensors().items()}
    process = psutil.Process()
    before = process.memory_info()
    runner = NativeRunner(shape, tensors.__getitem__, dtype="float32", vocab_size=40, slots=64)
    runner.compute([Work(n, 0, [1, 2, 3]) for n in range(64)])
    after = process.memory_info()
    # What the whole context takes is 16 GiB a slot, and 256 MiB for its angles.
    assert after.vms - before.vms < 4 << 30
    assert after.rss - before.rss < 512 << 20


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slot_grows_without_a_change_of_what_it_keeps(dtype: str) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=10,
        intermediate_size=30,
        max_position_embeddings=1500,
    )
    model = LlamaForCausalLM(config).eval()
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}
    shape = shape_of(config.to_dict())
    runner = NativeRunner(shape, tensors.__getitem__, dtype=dtype, vocab_size=50)
    ids = [int(i) for i in np.random.default_rng(1).integers(0, 50, 1500)]
    whole = runner.compute([Work(1, 0, ids, 1500)]).copy()
    if dtype == "float32":
        assert np.abs(whole - model_logits(model, ids)).max() < 1e-4
    cuts = [0, 3, 255, 256, 257, 500, 513, 1400, 1500]
    parts = [
        runner.compute([Work(2, a, ids[a:b], b - a)]).copy() for a, b in itertools.pairwise(cuts)
    ]
    assert np.array_equal(np.concatenate(parts), whole)
    # A copy of the longest beginning, over a slot that held less.
    runner.compute([Work(3, 0, ids[:5])])
    runner.release([3])
    runner.fork(2, 3, 1499)
    assert np.array_equal(runner.compute([Work(3, 1499, ids[1499:])])[0], whole[-1])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_threads_that_were_woken_may_run_wherever_their_caller_may(default: Made) -> None:
    tasks = Path("/proc/self/task")
    before = set(tasks.iterdir())
    runner = default.runner(threads=3)
    workers = [int(task.name) for task in set(tasks.iterdir()) - before]
    assert len(workers) == 2
    limit = time.monotonic() + 120
    while True:
        _alone(runner, _IDS)
        allowed = os.sched_getaffinity(0)
        if all(os.sched_getaffinity(worker) == allowed for worker in workers):
            break
        assert time.monotonic() < limit
        time.sleep(0.01)
