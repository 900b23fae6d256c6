"""Decoding by CUDA graphs. Skipped without a GPU; in a rehearsal the same without graphs."""

from __future__ import annotations

import copy

import pytest
import torch

from tallyformer.inference.engine import cuda_graphs
from tallyformer.inference.engine.cuda_graphs import CudaGraphs
from tallyformer.inference.engine.graph_runner import GraphRunner
from tallyformer.inference.engine.runner import Work
from tallyformer.inference.engine.torch_runner import TorchRunner
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.inference.torch_runners import static_shape, torch_runner
from tallyformer.model.shape import ModelShape

pytestmark = pytest.mark.gpu

VOCABULARY = 330  # of the folders in conftest.py


def test_graphs_are_recorded_and_decode_to_the_plain_runners_logits(
    llm: LLM, gpu: torch.device
) -> None:
    """One, two and three rows: three graphs, each started more than once.

    In float64, but for the plain model's norms, which are float32 always.
    """
    model = copy.deepcopy(llm.model).double().to(gpu)
    shape = static_shape(model)
    assert isinstance(shape, ModelShape)
    graphs = GraphRunner(model, shape, VOCABULARY, slots=4)
    assert (graphs.problem is None) == (gpu.type == "cuda"), graphs.problem
    plain = TorchRunner(model, VOCABULARY)
    begun = [Work(n, 0, [n + 5, 6, 7][: n + 1]) for n in range(3)]
    steps = [[Work(n, n + 1 + t, [9 + t]) for n in range(1 + t % 3)] for t in range(9)]
    lengths = dict.fromkeys(range(3), 0)
    for step in (begun, *steps):
        work = [Work(w.number, lengths[w.number], w.ids) for w in step]
        lengths |= {w.number: w.start + len(w.ids) for w in work}
        found, expected = graphs.compute(work), plain.compute(work)
        ordered = expected.rows[[expected.places.index(i) for i in range(len(work))]]
        torch.testing.assert_close(found.rows, ordered, atol=1e-5, rtol=0)
    assert (graphs.problem is None) == (gpu.type == "cuda"), graphs.problem


@pytest.mark.parametrize("how", [{"temperature": 0}, {"top_k": 20, "top_p": 0.9}, {"top_p": 0.8}])
def test_the_draw_on_the_gpu_gives_the_answers_of_the_cpu(
    llm: LLM, gpu: torch.device, how: dict[str, float]
) -> None:
    """In float64, over the context's end."""
    prompts = [[7], list(range(40, 70)), [9, 8, 7]]
    params = SamplingParams(**how, seed=1, max_tokens=40, ignore_eos=True)  # type: ignore[arg-type]
    models = [copy.deepcopy(llm.model).double().to(device) for device in ("cpu", gpu)]
    answers = [LLM(model, llm.tokenizer).generate(prompts, params) for model in models]

    assert answers[0] == answers[1]


def test_batch_invariant_bits_hold_on_the_gpu(llm: LLM, gpu: torch.device) -> None:
    model = copy.deepcopy(llm.model).to(gpu)
    runner = torch_runner(model, VOCABULARY, batch_invariant=True)
    prompts = [[n + 3, n + 4, n + 5][: 1 + n % 3] for n in range(20)]

    def rows(numbers: list[int]) -> dict[int, torch.Tensor]:
        runner.clear()
        first = runner.compute([Work(n, 0, prompts[n]) for n in numbers]).rows
        second = runner.compute([Work(n, len(prompts[n]), [9]) for n in numbers]).rows
        return dict(zip(numbers, torch.stack([first, second], dim=1), strict=True))

    together = rows(list(range(20))[::-1])
    for number in (0, 7, 19):
        assert torch.equal(rows([number])[number], together[number])


def test_work_that_lacked_memory_gets_its_graph_later(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if gpu.type != "cuda":
        pytest.skip("nothing is recorded without a GPU")
    monkeypatch.setattr(cuda_graphs, "_RUNS_WITHOUT", 1)
    graphs = CudaGraphs(gpu)
    count, failing = torch.zeros((), device=gpu), [torch.OutOfMemoryError("out of memory")]
    before = torch.cuda.current_stream(gpu)

    def work() -> None:
        if failing:
            raise failing.pop()
        count.add_(1)

    seen = []
    for _ in range(4):
        graphs.run("work", work)
        seen.append((count.item(), graphs.problem))
    # The third run warms up twice and is then the graph's.
    assert seen == [(1, "out of memory"), (2, "out of memory"), (5, None), (6, None)]
    assert torch.cuda.current_stream(gpu) == before


def test_work_that_cannot_be_recorded_is_done_on_the_stream_that_was(gpu: torch.device) -> None:
    if gpu.type != "cuda":
        pytest.skip("nothing is recorded without a GPU")
    graphs = CudaGraphs(gpu)
    count = torch.zeros((), device=gpu)
    before = torch.cuda.current_stream(gpu)

    def reads() -> None:
        count.add_(1)
        count.item()

    graphs.run("reads", reads)
    assert graphs.problem and torch.cuda.current_stream(gpu) == before
    graphs.run("reads", reads)
    # Two warm-ups, and twice without a graph.
    assert count.item() == 4
