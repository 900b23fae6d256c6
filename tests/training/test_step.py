"""One optimizer step, against plain torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tallyformer.config.training import OptimizerSection
from tallyformer.data.batch import IGNORED, Batch
from tallyformer.training.losses import NextTokenLoss
from tallyformer.training.micro_batch import Placement, document_mask, document_positions
from tallyformer.training.optimizers import build_optimizer, decay_groups
from tallyformer.training.precision import Precision
from tallyformer.training.step import MOST_SKIPPED_STEPS, NotFiniteError, Step

from .jobs import VOCABULARY, RandomBatches, section, tiny_model

CPU = torch.device("cpu")
SAME = {"rtol": 1e-4, "atol": 1e-6}


def make_step(model: Any, source: Any, precision: str = "fp32", **overrides: Any) -> Step:
    how, place = section(**overrides), Placement(CPU)
    return Step(
        loss=NextTokenLoss(model, how.z_loss),
        batches=lambda number: place.prepare(source.batch(number)),
        optimizer=build_optimizer(model, how.optimizer),
        micro_batches=how.gradient_accumulation,
        clip_norm=how.optimizer.clip_norm,
        precision=Precision(precision, CPU),
        placement=place,
    )


def never() -> bool:
    return False


class Split(RandomBatches):
    """The rows of one large batch, a few at a time."""

    def __init__(self, whole: Batch, sizes: list[int]):
        super().__init__()
        self.parts = [
            Batch(*(t.split(sizes)[i] for t in (whole.input_ids, whole.labels, whole.segments)))
            for i in range(len(sizes))
        ]

    def batch(self, index: int) -> Batch:
        return self.parts[index]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    ignored=st.sampled_from([0.0, 0.3, 0.9, 0.98]),
    seed=st.integers(0, 50),
)
@settings(max_examples=25)
def test_accumulation_equals_one_large_batch_whatever_labels_are_missing(sizes, ignored, seed):
    whole = RandomBatches(rows=sum(sizes), ignored=ignored, first=seed).batch(0)
    start = tiny_model(dropout=0.0)
    results = []
    for parts in ([sum(sizes)], sizes):
        step = make_step(
            copy.deepcopy(start), Split(whole, parts), gradient_accumulation=len(parts)
        )
        # Adam's first update is the sign of the gradient, which rounding can flip; SGD shows it.
        step.optimizer = torch.optim.SGD(step.loss.parameters(), lr=1.0)
        result = step.run(0, 1.0, never)
        assert result is not None
        results.append((result.read(), step.loss))
    (one, large), (many, small) = results
    assert many.labels == one.labels
    assert many.sums["loss"] == pytest.approx(one.sums["loss"], rel=1e-4)
    assert many.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4, abs=1e-6)
    for a, b in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(a, b, **SAME)


def test_a_step_without_labels_changes_nothing():
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    step = make_step(model, RandomBatches(ignored=1.0)).run(0, 1.0, never)
    assert step is not None
    result = step.read()
    assert (result.labels, result.sums, result.gradient_norm) == (0, {"loss": 0.0}, 0.0)
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())


def plain_step(model, batch: Batch, optimizer, z_loss: float, clip: float, rate: float):
    """A step as one would write it with the model's own forward pass and torch's functions."""
    logits = model(batch.input_ids, attention_mask=document_mask(batch.segments)).logits.flatten(
        0, 1
    )
    labels = batch.labels.flatten()
    keep = labels != IGNORED
    loss = functional.cross_entropy(logits, labels, ignore_index=IGNORED)
    loss = loss + z_loss * logits[keep].logsumexp(1).square().mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def test_steps_equal_plain_torch_with_adamw_clipping_and_z_loss():
    ours, theirs = tiny_model(dropout=0.0), tiny_model(dropout=0.0)
    source = RandomBatches()
    settings_ = OptimizerSection(learning_rate=1e-2, clip_norm=0.3)
    step = make_step(ours, source, gradient_accumulation=1, optimizer=settings_, z_loss=1e-2)
    matrices = [p for n, p in theirs.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for p in theirs.parameters() if not any(p is m for m in matrices)]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        weight_decay=0.1,
        fused=False,
        foreach=False,
    )
    for number in range(6):
        rate = 1e-2 / (number + 1)
        step.run(number, rate, never)
        plain_step(theirs, source.batch(number), optimizer, 1e-2, 0.3, rate)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # Where a gradient is near zero, Adam divides rounding by rounding.
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5, msg=name)


def test_only_matrices_decay():
    model = tiny_model(tie_word_embeddings=False)
    decayed, plain = decay_groups(model)
    assert {n.rpartition(".")[0].rpartition(".")[2] for n in decayed} == {
        "query",
        "key",
        "value",
        "proj",
        "fc1",
        "fc2",
    }
    assert {"lm_head.weight", "model.token_embed.weight"} <= plain.keys()
    assert len(decayed) + len(plain) == len(list(model.parameters()))


def test_frozen_parameters_are_not_optimised():
    model = tiny_model()
    model.model.token_embed.requires_grad_(False)
    decayed, plain = decay_groups(model)
    assert not any("embed" in name for name in {**decayed, **plain})


def poison(model) -> None:
    with torch.no_grad():
        model.model.blocks[0].mlp.fc1.weight[0, 0] = float("nan")


def test_a_loss_that_is_not_finite_names_its_batches():
    model = tiny_model()
    poison(model)
    with pytest.raises(NotFiniteError) as error:
        make_step(model, RandomBatches()).run(2, 1e-3, never)
    assert (error.value.what, error.value.batches) == ("the loss", [4, 5])


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_change():
    model = tiny_model()
    model.model.blocks[0].mlp.fc1.weight.register_hook(lambda g: g * float("inf"))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NotFiniteError, match="gradient norm is not finite"):
        make_step(model, RandomBatches()).run(0, 1e-3, never)
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())


def test_fp16_skips_overflowing_steps_and_lowers_its_scale_but_not_for_ever():
    model = tiny_model()
    poison(model)
    step = make_step(model, RandomBatches(), "fp16")
    first = step.scaler.get_scale()
    before = copy.deepcopy(model.state_dict())
    for number in range(3):
        result = step.run(number, 1e-3, never)
        assert result is not None and result.skipped
    assert step.skipped == 3
    assert step.scaler.get_scale() == first / 8
    for name, value in model.state_dict().items():
        assert torch.equal(before[name].nan_to_num(), value.nan_to_num())
    step.skipped = MOST_SKIPPED_STEPS
    with pytest.raises(NotFiniteError, match="not finite"):
        step.run(3, 1e-3, never)


def test_fp16_skips_a_step_whose_loss_alone_overflows():
    model = tiny_model()
    step = make_step(model, RandomBatches(), "fp16")
    before = copy.deepcopy(model.state_dict())
    inner = step.loss.forward

    def overflowing(*given):
        objective, sums = inner(*given)
        return objective, sums * float("inf")

    step.loss.forward = overflowing
    result = step.run(0, 1e-3, never)
    assert result is not None and result.skipped and step.skipped == 1
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())


def test_fp16_steps_stay_close_to_fp32():
    norms = []
    for precision in ("fp32", "fp16"):
        step = make_step(tiny_model(dropout=0.0), RandomBatches(), precision)
        result = step.run(0, 1e-3, never)
        assert result is not None
        norms.append(result.read().gradient_norm)
    # fp16 keeps 11 bits; unscaled gradients of 1e-5 would be lost altogether.
    assert norms[1] == pytest.approx(norms[0], rel=0.01)


def test_an_interrupted_step_leaves_the_weights_alone():
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    step = make_step(model, RandomBatches(), gradient_accumulation=3)
    assert step.run(0, 1e-3, lambda: True) is None
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=3),
    st.booleans(),
)
def test_the_mask_and_the_positions_are_what_the_segments_say(rows, ordered):
    segments = torch.tensor([sorted(r) if ordered else r for r in rows], dtype=torch.int32)
    mask, positions = document_mask(segments), document_positions(segments)
    for b, row in enumerate(segments.tolist()):
        start = 0
        for t in range(7):
            if t and row[t] != row[t - 1]:
                start = t
            assert positions[b, t] == t - start
            for s in range(7):
                assert mask[b, 0, t, s] == (s <= t and row[s] == row[t])


def test_packed_documents_compute_as_if_each_were_alone():
    model = tiny_model(initializer_range=0.3).eval()
    ids = torch.randint(VOCABULARY, (1, 12), generator=torch.Generator().manual_seed(0))
    segments = torch.tensor([[0] * 4 + [1] * 3 + [2] * 5], dtype=torch.int32)
    packed = model(ids, attention_mask=document_mask(segments)).logits
    for part in (slice(0, 4), slice(4, 7), slice(7, 12)):
        torch.testing.assert_close(packed[:, part], model(ids[:, part]).logits, **SAME)


def test_attending_across_documents_drops_the_mask():
    batch = RandomBatches().batch(0)
    assert Placement(CPU)(batch).mask is not None
    assert Placement(CPU, attend_across_documents=True)(batch).mask is None
