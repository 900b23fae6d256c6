"""Static slots, fixed shapes and the draw on the device give what the plain runner gives.

On a CPU all of it runs but the capture of graphs; `test_gpu_graphs.py` is for that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tallyformer.errors import CheckpointError, UsageError
from tallyformer.inference.engine.device_sampler import CANDIDATES
from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.engine.graph_runner import GraphRunner
from tallyformer.inference.engine.runner import Work
from tallyformer.inference.engine.static_decoder import Window
from tallyformer.inference.llm import LLM
from tallyformer.inference.ready_model import ReadyModel
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.inference.torch_model import with_torch
from tallyformer.inference.torch_runners import static_shape, torch_runner
from tallyformer.model.shape import ModelShape
from tallyformer.tokenizer.tokenizer import Tokenizer

from .decoders import KINDS as KINDS_OF_DECODERS
from .decoders import VOCABULARY as VOCABULARY_OF_DECODERS
from .decoders import make

CONTEXT, VOCABULARY = 32, 330
PROMPTS = [[7], list(range(40, 71)), [9, 8, 7, 6], [5] * 12, [100, 101], [3, 1, 4, 1, 5, 9]]
KINDS = {
    "greedy": {"temperature": 0},
    "candidates": {"top_k": 20, "top_p": 0.9, "temperature": 0.7},
    "min_p": {"min_p": 0.05},
    "vocabulary": {"top_p": 0.9},
    "independent": {"mode": "independent", "top_k": 40, "top_p": 0.8},
    "plain": {},
    "too wide": {"top_p": 0.999, "temperature": 50.0},
    "top_k above the bound": {"top_k": CANDIDATES + 1, "temperature": 20.0},
    "penalties": {"top_k": 20, "frequency_penalty": 0.5, "repetition_penalty": 1.2},
    "banned": {"temperature": 0, "bad_token_ids": [3, 4], "logprobs": 2},
}
"""Settings of which the device draws some and `torch_sampler` the rest."""


def params(kind: str, seed: int = 0, tokens: int = 45) -> SamplingParams:
    """Beyond the context's end, so that windows are begun again."""
    return SamplingParams(**KINDS[kind], seed=seed, max_tokens=tokens, ignore_eos=True)  # type: ignore[arg-type]


def graphs(llm: LLM, **how: Any) -> GraphRunner:
    shape = static_shape(llm.model)
    assert isinstance(shape, ModelShape), shape
    return GraphRunner(llm.model, shape, VOCABULARY, **how)


def with_runner(llm: LLM, runner: GraphRunner) -> LLM:
    ready = with_torch(llm.model, llm.tokenizer)
    values = {name: getattr(ready, name) for name in ReadyModel.__dataclass_fields__}
    return LLM(ReadyModel(**{**values, "runner": runner}), llm.tokenizer)


def test_every_kind_of_draw_gives_the_plain_runners_answers_in_mixed_company(llm: LLM) -> None:
    """More prompts than slots, so that they join and leave between steps.

    In float64: no draw lies so near to a boundary that the order of summation decides it.
    """
    llm = LLM(copy.deepcopy(llm.model).double(), llm.tokenizer)
    static = with_runner(llm, graphs(llm, slots=5))
    prompts = [prompt for prompt in PROMPTS for _ in KINDS]
    settings = [params(kind, seed) for seed in range(len(PROMPTS)) for kind in KINDS]

    assert ids_of(static, prompts, settings) == ids_of(llm, prompts, settings)


@pytest.mark.parametrize("how", [{"n": 3}, {"look_up": 4}, {"prompt_logprobs": 1}])
def test_forks_guesses_and_scored_prompts_give_the_plain_runners_answers(
    llm: LLM, how: dict[str, Any]
) -> None:
    static = with_runner(llm, graphs(llm, slots=4))
    asked = SamplingParams(top_k=20, seed=1, max_tokens=20, ignore_eos=True, **how)
    assert ids_of(static, PROMPTS, asked) == ids_of(llm, PROMPTS, asked)


def ids_of(llm: LLM, prompts: list[list[int]], params: Any) -> list[list[int]]:
    return [out.token_ids for out in llm.generate(prompts, params, prefix_key="me")]


def test_a_few_rows_take_a_small_graph_though_others_are_kept_before_them(llm: LLM) -> None:
    runner = graphs(llm, slots=8)
    runner.compute([Work(n, 0, [n + 1, 2, 3]) for n in range(8)])
    names = recorded(runner)
    row = runner.compute([Work(6, 3, [4])]).rows[0]

    assert names == [("decode", 1, 32)]
    with torch.inference_mode():
        plain = llm.model(torch.tensor([[7, 2, 3, 4]])).logits[0, -1, :VOCABULARY]
        kept = llm.model(torch.tensor([[1, 2, 3, 5]])).logits[0, -1, :VOCABULARY]
    torch.testing.assert_close(row, plain, atol=1e-3, rtol=1e-5)
    # What had the first slot went on living in another one.
    torch.testing.assert_close(
        runner.compute([Work(0, 3, [5])]).rows[0], kept, atol=1e-3, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("invariant", "windows", "started"),
    [
        (False, [3], [("prefill", 16, 32)]),
        (False, [17, 2], [("prefill", 32, 32), ("prefill", 16, 32)]),
        (False, [2] * 5, []),
        (True, [2] * 5, [("prefill", CONTEXT, 32)] * 5),
    ],
)
def test_few_windows_are_a_graph_each_and_many_go_together(
    llm: LLM, invariant: bool, windows: list[int], started: list[Any]
) -> None:
    runner = graphs(llm, slots=8, batch_invariant=invariant)
    names = recorded(runner)
    work = [Work(n, 0, list(range(n + 3, n + 3 + length))) for n, length in enumerate(windows)]
    rows = runner.compute(work).rows

    assert names == started
    with torch.inference_mode():
        for w, row in zip(work, rows, strict=True):
            plain = llm.model(torch.tensor([w.ids])).logits[0, -1, :VOCABULARY]
            torch.testing.assert_close(row, plain, atol=1e-3, rtol=1e-5)


def recorded(runner: GraphRunner) -> list[Any]:
    """The names of the graphs that are started from now on."""
    names: list[Any] = []
    run = runner._graphs.run

    def noted(name: Any, work: Any) -> None:
        names.append(name)
        run(name, work)

    runner._graphs.run = noted  # type: ignore[method-assign]
    return names


def test_no_memory_of_a_step_moves_whatever_is_asked(llm: LLM) -> None:
    """A graph reads and writes the addresses that it was recorded with."""
    runner = graphs(llm, slots=4)
    static = with_runner(llm, runner)
    before = addresses(runner)
    asked = [params(kind) for kind in ("greedy", "plain", "candidates", "penalties")]
    static.generate([*PROMPTS[:4], *PROMPTS[1:5]], [*asked, *asked])
    runner.clear()

    assert addresses(runner) == before


def addresses(runner: GraphRunner) -> list[int]:
    steps = runner._steps
    held = [steps.logits_SV, steps.inputs, steps.window, steps.settings, steps.ids]
    held.append(steps.decoder.kept)
    held += [copy for block in steps.decoder._blocks for copy in block.heads]
    return [tensor.data_ptr() for tensor in held if tensor is not None]


def test_logits_that_are_not_finite_are_an_error_and_leave_nothing_behind(llm: LLM) -> None:
    runner = graphs(llm, slots=2)
    engine = Engine(runner, llm.tokenizer, context=CONTEXT, eos_ids=())
    weight = next(llm.model.parameters())
    saved = weight.detach().clone()
    expected = llm.generate([[5, 6]], params("greedy"))[0].token_ids
    engine.add([5, 6], params("greedy"))
    try:
        with torch.no_grad():
            weight.fill_(torch.nan)
        [error] = engine.step().values()
        assert isinstance(error, CheckpointError) and "not finite" in str(error)
    finally:
        with torch.no_grad():
            weight.copy_(saved)
    [number] = engine.add([5, 6], params("greedy"))
    found = [i for piece in answer(engine, number) for i in piece.token_ids]
    assert found == list(expected)


def answer(engine: Engine, number: int) -> Iterator[Any]:
    while True:
        piece = engine.step().get(number)
        if piece is not None:
            yield piece
            if piece.finish_reason:
                return


@pytest.fixture
def invariant(llm: LLM) -> Iterator[GraphRunner]:
    """On a CPU the promise holds with one thread of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield graphs(llm, slots=16, batch_invariant=True)
    torch.set_num_threads(before)


def test_batch_invariant_logits_are_the_same_bits_in_any_company(
    llm: LLM, invariant: GraphRunner
) -> None:
    """Among none or many, in another slot, prompts and single ids alike."""
    ids = torch.randint(0, 200, (16, 2 * CONTEXT), generator=torch.Generator().manual_seed(1))
    lengths = [1 + 2 * n % 20 for n in range(16)]
    windows = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
    steps = 6

    def rows(numbers: list[int]) -> dict[int, list[torch.Tensor]]:
        invariant.clear()
        found: dict[int, list[torch.Tensor]] = {number: [] for number in numbers}
        for step in range(steps):
            work = [
                Work(n, lengths[n] + step - 1, [int(ids[n, lengths[n] + step - 1])])
                if step
                else Work(n, 0, windows[n])
                for n in numbers
            ]
            for number, row in zip(numbers, invariant.compute(work).rows, strict=True):
                found[number].append(row)
        return found

    together = rows(list(range(16))[::-1])
    for number in (0, 3, 11, 15):
        alone = rows([number])[number]
        in_part = rows([4, number, 7])[number]
        for step in range(steps):
            assert torch.equal(alone[step], together[number][step])
            assert torch.equal(alone[step], in_part[step])


def test_batch_invariant_answers_and_log_probabilities_are_the_same_bits_in_any_company(
    llm: LLM, invariant: GraphRunner
) -> None:
    invariant.clear()
    static = with_runner(llm, invariant)
    settings = [
        SamplingParams(**KINDS[kind], seed=2, max_tokens=40, ignore_eos=True, logprobs=logprobs)  # type: ignore[arg-type]
        for kind, logprobs in (("greedy", 0), ("candidates", None), ("vocabulary", 3))
    ]
    asked = [(prompt, each) for each in settings for prompt in PROMPTS]
    together = static.generate([prompt for prompt, _ in asked], [each for _, each in asked])

    assert together == [static.generate([prompt], each)[0] for prompt, each in asked]


def test_the_folder_is_loaded_batch_invariant_by_either_runner(tally_folder: Path) -> None:
    llm = LLM.from_pretrained(tally_folder, device="cpu", runner="torch", batch_invariant=True)
    plain = LLM.from_pretrained(tally_folder, device="cpu", runner="torch")
    native = LLM.from_pretrained(tally_folder, device="cpu", batch_invariant=True)

    asked = params("greedy", tokens=10)
    assert isinstance(llm._served.runner, GraphRunner)
    assert not isinstance(plain._served.runner, GraphRunner)
    assert llm.generate(PROMPTS, asked) == native.generate(PROMPTS, asked)


def test_a_model_of_another_kind_is_not_batch_invariant_and_says_so(tokenizer: Tokenizer) -> None:
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=8, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).eval()

    with pytest.raises(UsageError, match=r"batch_invariant: .*GPT2LMHeadModel is neither"):
        torch_runner(model, VOCABULARY, batch_invariant=True)
    assert not isinstance(torch_runner(model, VOCABULARY), GraphRunner)


@pytest.mark.parametrize("kind", KINDS_OF_DECODERS)
def test_every_kind_of_decoder_gives_the_plain_models_logits_in_any_company(kind: str) -> None:
    """Windows by graphs and together, the shorter ones padded on the left, in slots out of order;
    then single ids of some, and several ids of others."""
    torch.manual_seed(0)
    model = make(kind)
    shape = static_shape(model)
    assert isinstance(shape, ModelShape)
    runner = GraphRunner(model, shape, VOCABULARY_OF_DECODERS, slots=8)
    ids = torch.randint(0, VOCABULARY_OF_DECODERS, (7, 64)).tolist()
    lengths = dict.fromkeys(range(7), 0)
    # How many ids of each sequence a step takes, and of how many of them logits are wanted.
    steps = [
        {1: (9, 1), 0: (18, 1)},
        {0: (1, 1), 2: (3, 1), 3: (11, 1), 4: (2, 1), 5: (25, 1), 6: (5, 1)},
        {6: (1, 1), 0: (1, 1), 3: (1, 1)},
        {5: (3, 3), 1: (2, 2), 2: (1, 1), 4: (20, 1)},
        dict.fromkeys(range(7), (1, 1)),
    ]
    for step in steps:
        work, expected = [], []
        for n, (count, logits) in step.items():
            end = lengths[n] + count
            work.append(Work(n, lengths[n], ids[n][lengths[n] : end], logits))
            lengths[n] = end
            with torch.inference_mode():
                expected.append(model(torch.tensor([ids[n][:end]])).logits[0, -logits:])
        found = runner.compute(work)
        places = [found.places.index(place) for place in range(len(found.places))]
        torch.testing.assert_close(found.rows[places], torch.cat(expected), atol=1e-4, rtol=0)


def test_many_windows_go_together_in_parts_that_are_not_padded_to_more_than_a_bound(
    llm: LLM,
) -> None:
    """A long window among many short ones."""
    slots = 560
    runner = graphs(llm, slots=slots)
    decoder, sizes = runner._steps.decoder, []
    final = decoder.final

    def noted(window: Window) -> torch.Tensor:
        sizes.append(window.ids.numel())
        return final(window)

    decoder.final = noted  # type: ignore[method-assign]
    work = [Work(n, 0, [n % 200, 7]) for n in range(slots)]
    work[3] = Work(3, 0, list(range(40, 70)))
    rows = runner.compute(work).rows

    assert len(sizes) == 2 and max(sizes) <= 16_384 < 30 * slots
    with torch.inference_mode():
        for n in (0, 3, 4, slots - 1):
            plain = llm.model(torch.tensor([work[n].ids])).logits[0, -1, :VOCABULARY]
            torch.testing.assert_close(rows[n], plain, atol=1e-3, rtol=1e-5)


def test_a_model_that_changed_is_computed_as_it_is_now_once_all_is_forgotten(llm: LLM) -> None:
    model = copy.deepcopy(llm.model)
    runner = graphs(LLM(model, llm.tokenizer), slots=2)
    before = addresses(runner)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    runner.clear()
    row = runner.compute([Work(0, 0, [7, 8, 9])]).rows[0]

    assert addresses(runner) == before
    with torch.inference_mode():
        plain = model(torch.tensor([[7, 8, 9]])).logits[0, -1, :VOCABULARY]
    torch.testing.assert_close(row, plain, atol=1e-3, rtol=1e-5)
