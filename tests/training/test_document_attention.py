"""Attention by where documents begin, against the mask."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tallyformer.training import document_attention
from tallyformer.training.compiling import compile_blocks
from tallyformer.training.document_attention import use_document_attention
from tallyformer.training.losses import NextTokenLoss
from tallyformer.training.micro_batch import Placement, document_starts
from tallyformer.training.precision import Precision
from tallyformer.training.teacher import Teacher

from .jobs import CONTEXT, VOCABULARY, RandomBatches, tiny_model

CPU = torch.device("cpu")


def within(
    q_NHE: torch.Tensor,
    k_NHE: torch.Tensor,
    v_NHE: torch.Tensor,
    starts_L: torch.Tensor,
    longest: int,
    scale: float | None,
) -> torch.Tensor:
    """What the GPU's kernel computes, written out: a CPU has none."""
    bounds = starts_L.tolist()
    parts = [
        functional.scaled_dot_product_attention(
            *(x[begin:end].transpose(0, 1) for x in (q_NHE, k_NHE, v_NHE)),
            is_causal=True,
            scale=scale,
        ).transpose(0, 1)
        for begin, end in itertools.pairwise(bounds)
        if end > begin
    ]
    return torch.cat(parts)


@given(st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=12))
def test_starts_are_where_a_row_or_a_document_begins(rows: list[list[int]]) -> None:
    starts = document_starts(torch.tensor(rows, dtype=torch.int32)).tolist()
    expected = [
        7 * b + t for b, row in enumerate(rows) for t in range(7) if not t or row[t] != row[t - 1]
    ]
    assert starts[: len(expected)] == expected
    assert set(starts[len(expected) :]) == {7 * len(rows)}
    assert len(starts) % 64 == 0


def gradients(loss: NextTokenLoss, inputs: Any) -> list[torch.Tensor]:
    objective, sums = loss(inputs, 0.1, Precision("fp32", CPU))
    objective.backward()
    return [sums, *(p.grad for p in loss.parameters() if p.grad is not None)]


def test_loss_and_gradients_are_those_of_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = RandomBatches().batch(0)
    inputs = Placement(CPU)(batch)
    assert batch.segments is not None
    expected = gradients(NextTokenLoss(tiny_model(dropout=0.0)), inputs)
    monkeypatch.setattr(document_attention, "attend_within", within)
    monkeypatch.setattr(document_attention, "_may_work", lambda model, precision: True)
    # Without segments there is no mask to fall back on.
    by_place = dataclasses.replace(inputs, starts=document_starts(batch.segments), segments=None)
    found = gradients(NextTokenLoss(tiny_model(dropout=0.0)), by_place)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_teacher_of_our_own_class_says_what_it_says_with_the_mask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    precision = Precision("fp32", CPU)
    batch = RandomBatches().batch(0)
    inputs = Placement(CPU)(batch)
    assert batch.segments is not None

    def teacher() -> Teacher:
        return Teacher(tiny_model(dropout=0.0, initializer_range=0.3), VOCABULARY, "tiny")

    expected = teacher().targets(inputs, precision, 1.0).logits(slice(None))
    monkeypatch.setattr(document_attention, "attend_within", within)
    monkeypatch.setattr(document_attention, "_may_work", lambda model, precision: True)
    by_place = dataclasses.replace(inputs, starts=document_starts(batch.segments), segments=None)
    found = teacher().targets(by_place, precision, 1.0).logits(slice(None))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_kernel_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(dropout=0.0)
    monkeypatch.setattr(document_attention, "_may_work", lambda model, precision: True)

    def across(*given: Any) -> torch.Tensor:
        *qkv, starts, longest, scale = given
        return within(*qkv, starts[[0, -1]], longest, scale)

    monkeypatch.setattr(document_attention, "attend_within", across)
    assert not use_document_attention(model, Precision("fp32", CPU))
    monkeypatch.undo()
    assert not use_document_attention(model, Precision("bf16", CPU))
    assert model.config._attn_implementation == "sdpa"


def test_the_model_still_computes_other_calls_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(dropout=0.0, initializer_range=0.3).eval()
    ids = torch.arange(2 * CONTEXT).view(2, CONTEXT)
    padding = torch.ones(2, CONTEXT, dtype=torch.long)
    padding[0, :5] = 0
    expected = [model(ids).logits, model(ids, attention_mask=padding).logits]
    monkeypatch.setattr(document_attention, "attend_within", within)
    monkeypatch.setattr(document_attention, "_may_work", lambda model, precision: True)
    assert use_document_attention(model, Precision("fp32", CPU))
    found = [model(ids).logits, model(ids, attention_mask=padding).logits]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one[padding.bool()], other[padding.bool()])


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_it_is_found_out_alike_where_a_validation_comes_first(
    without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a run that is resumed at a validation, and in an evaluation."""
    monkeypatch.setattr(document_attention, "attend_within", within)
    monkeypatch.setattr(document_attention, "_may_work", lambda model, precision: True)
    with without():
        assert use_document_attention(tiny_model(dropout=0.0), Precision("fp32", CPU))


def test_a_compiled_block_has_the_kernel_in_its_one_graph() -> None:
    """Traced, not run: a CPU has no such kernel."""
    graphs: list[str] = []

    def traced(graph: Any, inputs: Any) -> Any:
        graphs.append(graph.code)
        return lambda *given: (torch.zeros(2, 6, 3, 8),)

    torch.compiler.reset()
    attend = torch.compile(
        document_attention.document_attention, fullgraph=True, backend=traced, dynamic=False
    )
    q_BHTE = torch.randn(2, 3, 6, 8)
    starts = document_starts(torch.zeros(2, 6, dtype=torch.int32))
    how = document_attention.documents_of(starts, 6)
    mixed_BTHE, _ = attend(torch.nn.Identity(), q_BHTE, q_BHTE, q_BHTE, None, **how)
    assert mixed_BTHE.shape == (2, 6, 3, 8)
    assert len(graphs) == 1 and "_varlen_attn" in graphs[0]


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_the_kernel_of_this_gpu_is_used_and_gives_what_the_mask_gives(
    compiled: bool, gpu: torch.device
) -> None:
    if gpu.type == "cpu":
        pytest.skip("a CPU has no such kernel")
    precision = Precision("bf16", gpu)
    gradients_of = {}
    for by_place in (True, False):
        loss = NextTokenLoss(tiny_model(dropout=0.0).to(gpu))
        if compiled:
            compile_blocks(loss.model)
        inputs = Placement(gpu)(RandomBatches().batch(0))
        if not by_place:
            inputs = dataclasses.replace(inputs, starts=None)
        objective, _ = loss(inputs, 0.1, precision)
        objective.backward()
        gradients_of[by_place] = [p.grad for p in loss.parameters()]
        used = loss.model.config._attn_implementation == document_attention.NAME
        assert used == by_place
    for one, other in zip(gradients_of[True], gradients_of[False], strict=True):
        assert (one - other).norm() <= 0.05 * other.norm()
