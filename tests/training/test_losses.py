"""The chunked loss against torch's own, on whole logits.

N positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.training.chunked_head import Head, chunk_length, chunked_loss
from tallyformer.training.compiling import compiler_works, wants_compile
from tallyformer.training.losses import next_token
from tallyformer.training.micro_batch import Placement

FLOAT32 = {"rtol": 1e-4, "atol": 1e-6}
"""Sums of a few dozen float32 numbers in another order."""


def problem(n: int, d: int, v: int, seed: int, ignored: float = 0.3):
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(n, d, generator=g).requires_grad_()
    w = torch.randn(v, d, generator=g).requires_grad_()
    labels = torch.randint(v, (n,), generator=g)
    labels[torch.rand(n, generator=g) < ignored] = IGNORED
    return h, w, labels


def plain(h, w, labels, z_loss: float):
    logits = (h @ w.T)[labels != IGNORED]
    ce = functional.cross_entropy(logits, labels[labels != IGNORED], reduction="sum")
    return ce + z_loss * logits.logsumexp(1).square().sum(), ce


@given(
    n=st.integers(1, 20),
    v=st.integers(2, 40),
    chunk=st.integers(1, 25),
    z_loss=st.sampled_from([0.0, 1e-2]),
    scale=st.sampled_from([1.0, 0.37]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_chunked_loss_and_gradients_equal_torch_on_whole_logits(n, v, chunk, z_loss, scale, seed):
    h, w, labels = problem(n, 6, v, seed)
    expected, ce = plain(h, w, labels, z_loss)
    wanted = torch.autograd.grad(expected * scale, (h, w))
    loss = next_token(z_loss)(labels)
    found, sums = chunked_loss(h, Head(w), loss, scale=scale, dtype=torch.float32, chunk=chunk)
    torch.testing.assert_close(sums, torch.stack([expected, ce]), **FLOAT32)
    torch.testing.assert_close(found, expected * scale, **FLOAT32)
    for got, want in zip(torch.autograd.grad(found, (h, w)), wanted, strict=True):
        torch.testing.assert_close(got, want, **FLOAT32)


def test_a_factor_on_the_result_reaches_the_gradients():
    h, w, labels = problem(9, 6, 30, 0)
    loss, _ = chunked_loss(h, Head(w), next_token(0.0)(labels), scale=1.0, dtype=torch.float32)
    (once,) = torch.autograd.grad(loss, h, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * loss, h)
    torch.testing.assert_close(thrice, 3 * once)


def test_bf16_gradients_are_those_of_bf16_logits():
    h, w, labels = problem(64, 32, 300, 1)
    expected, _ = plain(h, w, labels, 1e-4)
    wanted = torch.autograd.grad(expected, (h, w))
    loss = next_token(1e-4)(labels)
    found, _ = chunked_loss(h, Head(w), loss, scale=1.0, dtype=torch.bfloat16, chunk=20)
    # bf16 keeps 8 bits: 2^-8 of a value, and the logits reach 20.
    assert found.item() == pytest.approx(expected.item(), rel=0.01)
    for got, want in zip(torch.autograd.grad(found, (h, w)), wanted, strict=True):
        assert (got - want).norm() < 0.05 * want.norm()


def test_weights_that_need_no_gradient_get_none():
    h, w, labels = problem(9, 6, 30, 0)
    loss, _ = chunked_loss(
        h, Head(w.detach()), next_token(0.0)(labels), scale=1.0, dtype=torch.float32
    )
    (found,) = torch.autograd.grad(loss, h)
    wanted = torch.autograd.grad(plain(h, w, labels, 0.0)[0], h)[0]
    torch.testing.assert_close(found, wanted, **FLOAT32)


def test_a_loss_computed_in_blocks_equals_torch_on_whole_logits():
    h, w, labels = problem(40, 6, 40_000, 0)  # on a CPU the loss sees about 13 rows at a time
    expected, ce = plain(h, w, labels, 1e-3)
    wanted = torch.autograd.grad(expected, (h, w))
    loss = next_token(1e-3)(labels)
    found, sums = chunked_loss(h, Head(w), loss, scale=1.0, dtype=torch.float32)
    torch.testing.assert_close(sums, torch.stack([expected, ce]), **FLOAT32)
    for got, want in zip(torch.autograd.grad(found, (h, w)), wanted, strict=True):
        torch.testing.assert_close(got, want, **FLOAT32)


@pytest.mark.parametrize("chunk", [None, 7])
def test_rows_trained_alone_get_the_gradient_they_have_in_the_whole_matrix(chunk):
    h, w, labels = problem(30, 6, 50, 3)
    rows, ids = torch.randn(3, 6, requires_grad=True), [4, 49, 0]
    whole = w.detach().index_copy(0, torch.tensor(ids), rows)
    expected, _ = plain(h, whole, labels, 1e-3)
    wanted = torch.autograd.grad(expected, (h, rows))
    head = Head(w.detach(), rows, torch.tensor(ids))
    loss = next_token(1e-3)(labels)
    found, _ = chunked_loss(h, head, loss, scale=1.0, dtype=torch.float32, chunk=chunk)
    torch.testing.assert_close(found, expected, **FLOAT32)
    for got, want in zip(torch.autograd.grad(found, (h, rows)), wanted, strict=True):
        torch.testing.assert_close(got, want, **FLOAT32)


@given(
    st.integers(1, 200_000),
    st.integers(1, 300_000),
    st.sampled_from([("cpu", 2**25), ("cuda", 2**27)]),
)
def test_chunks_are_about_equal_never_empty_and_bounded(positions, vocabulary, device):
    kind, most = device
    length = chunk_length(positions, vocabulary, torch.device(kind))
    chunks = -(-positions // length)
    assert 1 <= length <= positions
    assert length <= max(64, most // vocabulary)
    assert chunks * length - positions < chunks


def test_the_compiled_loss_gives_the_numbers_of_the_eager_one():
    cpu = torch.device("cpu")
    assert wants_compile("auto", cpu, run_flops=1e20) == compiler_works(cpu)
    results = []
    for compiled in (False, compiler_works(cpu)):
        kernel = next_token(1e-3, compiled=compiled)
        numbers = []
        for n in (40, 33, 7):  # chunks of 20, 13 and 7 positions: one compiled version for all
            h, w, labels = problem(n, 8, 77, 4)
            loss = kernel(labels)
            objective, sums = chunked_loss(
                h, Head(w), loss, scale=0.1, dtype=torch.bfloat16, chunk=20
            )
            numbers += [sums, *torch.autograd.grad(objective, (h, w))]
        results.append(numbers)
    for eager, fused in zip(*results, strict=True):
        # The same bf16 logits; a gradient may be rounded to the neighbouring bf16 number.
        torch.testing.assert_close(fused, eager, rtol=2**-7, atol=1e-4)


def test_short_runs_are_not_compiled():
    assert not wants_compile("auto", torch.device("cpu"), run_flops=1e12)


@given(st.integers(1, 5), st.integers(1, 90), st.floats(0, 1), st.integers(0, 9))
def test_the_head_meets_few_shapes_and_every_label(
    rows: int, length: int, share: float, seed: int
) -> None:
    """A shape of its own for each number of labels cost gigabytes of cached kernels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 9, (rows, length), generator=generator)
    labels[torch.rand(rows, length, generator=generator) < share] = IGNORED
    inputs = Placement(torch.device("cpu"))(Batch(labels.clamp_min(0), labels, None))
    places = torch.arange(rows * length) if inputs.rows is None else inputs.rows
    assert len(places) == rows * length or len(places) % 64 == 0
    assert torch.equal(labels.flatten()[places], inputs.labels)
    assert int((inputs.labels != IGNORED).sum()) == int((labels != IGNORED).sum())
    assert len(set(places.tolist())) == len(places)


def test_without_gradients_none_are_computed():
    """Validation would cost as much as training."""
    h, w, labels = problem(9, 6, 30, 0)
    asked = []

    def loss(logits, chunk, scale, *, gradient):
        asked.append(gradient)
        return next_token(0.0)(labels)(logits, chunk, scale, gradient=gradient)

    with torch.no_grad():
        chunked_loss(h, Head(w), loss, scale=1.0, dtype=torch.float32)
    assert asked == [False]
