"""Parts of training on a GPU, each against what the CPU computes."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tallyformer.config.training import OptimizerSection, PretrainSection
from tallyformer.training.chunked_head import Head, chunked_loss
from tallyformer.training.compiling import compile_blocks
from tallyformer.training.loop import evaluate_only
from tallyformer.training.losses import NextTokenLoss, next_token
from tallyformer.training.micro_batch import Placement
from tallyformer.training.optimizers import build_optimizer
from tallyformer.training.precision import Precision

from .jobs import VOCABULARY, RandomBatches, tiny_model

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
FLOAT32 = {"rtol": 2e-4, "atol": 2e-5}
"""Sums of float32 products in another order."""


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative to what is expected."""
    return float((found.cpu().float() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # 8 bits of bf16 and 11 of fp16, some roundings each.
    [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)],
)
@pytest.mark.parametrize("chunk", [None, 33])
def test_the_chunked_head_equals_float32_on_the_cpu(
    chunk: int | None, dtype: torch.dtype, tolerance: float, gpu: torch.device
) -> None:
    n, d, v = 200, 64, 1000
    g = torch.Generator().manual_seed(0)
    h_ND, w_VD = torch.randn(n, d, generator=g), torch.randn(v, d, generator=g) / 8
    labels_N = torch.randint(v, (n,), generator=g)

    def gradients(device: torch.device, dtype: torch.dtype, chunk: int | None) -> list[Any]:
        h, w = (x.to(device).requires_grad_() for x in (h_ND, w_VD))
        loss = next_token(1e-3)(labels_N.to(device))
        found, sums = chunked_loss(h, Head(w), loss, scale=1.0, dtype=dtype, chunk=chunk)
        found.backward()
        return [sums, h.grad, w.grad]

    wanted = gradients(CPU, torch.float32, None)
    for found, expected in zip(gradients(gpu, dtype, chunk), wanted, strict=True):
        assert distance(found, expected) <= tolerance


@pytest.mark.parametrize(
    ("name", "tolerance"),
    # Muon multiplies in bf16, on either device.
    [("adamw", 1e-5), ("muon", 3e-2)],
)
def test_optimizers_update_as_on_the_cpu(name: str, tolerance: float, gpu: torch.device) -> None:
    section = OptimizerSection(name=name, learning_rate=1e-2)
    updates = []
    for device in (CPU, gpu):
        model = tiny_model().to(device)
        before = [p.detach().clone() for p in model.parameters()]
        optimizer = build_optimizer(model, section)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(device)
            optimizer.step()
        updates.append([(p - b).detach() for p, b in zip(model.parameters(), before, strict=True)])
    for expected, found in zip(*updates, strict=True):
        assert distance(found, expected) <= tolerance


def test_compiled_blocks_and_loss_equal_eager_ones(gpu: torch.device) -> None:
    if gpu.type == "cpu":
        pytest.skip("compiling for the CPU has tests of its own")
    found = []
    for compiled in (False, True):
        model = tiny_model(dropout=0.0).to(gpu).train()
        if compiled:
            compile_blocks(model)
        loss = NextTokenLoss(model, 1e-3, compiled=compiled)
        inputs = Placement(gpu)(RandomBatches().batch(0))
        objective, sums = loss(inputs, 0.01, Precision("fp32", gpu))
        objective.backward()
        found.append([sums, *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **FLOAT32)


def test_validation_equals_the_cpu(gpu: torch.device) -> None:
    section = PretrainSection(steps=1, precision="fp32")
    token_bytes = torch.full((VOCABULARY,), 2).numpy()
    losses = [
        evaluate_only(
            tiny_model().to(device),
            RandomBatches(batches_per_epoch=2),
            device=device,
            section=section,
            token_bytes=token_bytes,
            label="validation",
        ).mean
        for device in (CPU, gpu)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.fixture
def one_process(gpu: torch.device) -> Any:
    """A process group of this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{Path(folder) / 'store'}"
        backend = "nccl" if gpu.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=store, rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed_data_parallel_of_one_process_gives_the_plain_gradients(
    gpu: torch.device,
) -> None:
    plain = NextTokenLoss(tiny_model(dropout=0.0).to(gpu).train(), 1e-3)
    wrapped = DistributedDataParallel(copy.deepcopy(plain))
    inputs = Placement(gpu)(RandomBatches().batch(0))
    for loss in (plain, wrapped):
        objective, _ = loss(inputs, 0.01, Precision("fp32", gpu))
        objective.backward()
    for one, other in zip(plain.parameters(), wrapped.module.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, **FLOAT32)
