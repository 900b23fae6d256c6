"""A sequence whose logits are not finite fails alone, and nobody computes with what it kept."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from tallyformer.errors import CheckpointError
from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.engine.graph_runner import GraphRunner
from tallyformer.inference.engine.runner import Runner
from tallyformer.inference.engine.torch_runner import TorchRunner
from tallyformer.inference.native.available import available
from tallyformer.inference.native.runner import NativeRunner
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.inference.torch_runners import static_shape
from tallyformer.model.shape import ModelShape
from tallyformer.tokenizer.tokenizer import Tokenizer

from ..conftest import CONTEXT

SLOTS = 4


@pytest.fixture(scope="module", params=[7, 0])
def wrong(request: pytest.FixtureRequest) -> int:
    """An id whose embedding is NaN, in a model that never finds it likely. Torch pads with id 0."""
    return int(request.param)


@pytest.fixture(scope="module")
def folder(wrong: int, llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = LlamaForCausalLM.from_pretrained(llama_folder)
    with torch.no_grad():
        model.model.embed_tokens.weight[wrong] = torch.nan
        model.lm_head.weight[wrong] = 0.0
    into = tmp_path_factory.mktemp("unsound")
    model.save_pretrained(into)
    return into


@pytest.fixture(params=["float32", "bfloat16", "int8", "int4", "torch", "graph"])
def runner(folder: Path, tokenizer: Tokenizer, request: pytest.FixtureRequest) -> Runner:
    """Torch's, or the native one in a number format: none may make a number of what is none."""
    size: dict[str, Any] = {"vocab_size": tokenizer.vocab_size, "slots": SLOTS}
    if request.param not in ("torch", "graph"):
        if reason := available():
            pytest.skip(reason)
        return NativeRunner.from_folder(folder, dtype=request.param, **size)
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    if request.param == "torch":
        return TorchRunner(model, **size)
    shape = static_shape(model)
    assert isinstance(shape, ModelShape)
    return GraphRunner(model, shape, **size)


def _answers(engine: Engine, prompts: list[list[int]], params: SamplingParams) -> list[Any]:
    """Ids, or the error, of each; they begin together and wait for places."""
    numbers = [engine.add(ids, params)[0] for ids in prompts]
    found: dict[int, Any] = defaultdict(list)
    left = set(numbers)
    while left:
        for number, got in engine.step().items():
            if isinstance(got, Exception):
                found[number] = got
                left.discard(number)
            else:
                found[number] += got.token_ids
                left -= {number} if got.finish_reason else set()
    return [found[number] for number in numbers]


def test_two_that_fail_in_one_step_leave_nothing_to_those_that_come_after(
    runner: Runner, wrong: int, tokenizer: Tokenizer
) -> None:
    """The first one's slot is filled by the second, whose own is then taken by somebody else."""
    engine = Engine(runner, tokenizer, context=CONTEXT, eos_ids=())
    params = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True, bad_token_ids=[wrong])
    after = [list(range(20, 30)), [14]]
    alone = [_answers(engine, [ids], params)[0] for ids in after]
    first = engine.add([11, 12], params)[0]
    failing = [engine.add([10 + n, wrong, 5], params)[0] for n in range(2)]
    got = engine.step()
    assert all(isinstance(got[number], CheckpointError) for number in failing)
    assert not isinstance(got.get(first), Exception) and engine.running == 1
    assert _answers(engine, after, params) == alone


@pytest.mark.parametrize("more", [{}, {"prompt_logprobs": 0}, {"look_up": 4}])
def test_a_sequence_without_finite_logits_fails_alone(
    runner: Runner, wrong: int, tokenizer: Tokenizer, more: dict[str, int]
) -> None:
    engine = Engine(runner, tokenizer, context=CONTEXT, eos_ids=())
    params = SamplingParams(
        temperature=0, max_tokens=9, ignore_eos=True, bad_token_ids=[wrong], **more
    )
    prompts = [[n + 10 + k for k in range(1 + n % 13)] for n in range(24)]
    alone = [_answers(engine, [ids], params)[0] for ids in prompts]
    mixed = [[*ids, wrong, 5] if n % 3 == 1 else ids for n, ids in enumerate(prompts)]
    for n, got in enumerate(_answers(engine, mixed, params)):
        if n % 3 == 1:
            assert isinstance(got, CheckpointError) and "not finite" in str(got)
        else:
            assert got == alone[n]
    assert engine.running == 0
    # Whatever is kept after that is sound.
    assert [_answers(engine, [ids], params)[0] for ids in prompts] == alone
