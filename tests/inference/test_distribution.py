"""Laws of the truncated distributions, against plain definitions over a sorted vocabulary."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessor,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tallyformer.inference.distribution import (
    Filters,
    candidates,
    draw,
    full_distribution,
)

V = 40


def _filters(rows: list[dict[str, float]]) -> Filters:
    def column(name: str, default: float) -> Tensor:
        return torch.tensor([row.get(name, default) for row in rows], dtype=torch.float64)

    return Filters(
        temperature=column("temperature", 1.0),
        top_k=column("top_k", 0).long(),
        top_p=column("top_p", 1.0),
        min_p=column("min_p", 0.0),
        independent=column("independent", 0).bool(),
    )


def _whole(logits_NV: Tensor, rows: list[dict[str, float]]) -> Tensor:
    """`candidates` scattered back over the vocabulary."""
    ids_NK, probs_NK = candidates(logits_NV, _filters(rows))
    return torch.zeros(logits_NV.shape, dtype=torch.float64).scatter_(1, ids_NK, probs_NK)


def _by_definition(logits_V: list[float], row: dict[str, float]) -> list[float]:
    scale = row.get("temperature", 1.0)
    top = max(logits_V)
    weights = [math.exp((x - top) / scale) for x in logits_V]
    total = math.fsum(weights)
    probs = [w / total for w in weights]
    order = sorted(range(len(probs)), key=lambda i: -probs[i])
    k = int(row.get("top_k", 0)) or len(probs)
    inside = order[:k]
    whole = 1.0 if row.get("independent") else math.fsum(probs[i] for i in inside)
    kept: list[int] = []
    mass = 0.0
    for i in inside:
        if row.get("top_p", 1.0) < 1 and mass >= row["top_p"] * whole:
            break
        kept.append(i)
        mass += probs[i]
    kept = [i for i in kept if probs[i] >= row.get("min_p", 0.0) * probs[order[0]]]
    rest = math.fsum(probs[i] for i in kept)
    return [probs[i] / rest if i in kept else 0.0 for i in range(len(probs))]


ROW = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.1, 0.7, 1.0, 3.0]),
        "top_k": st.sampled_from([1, 2, 7, V, 2 * V]),
        "top_p": st.sampled_from([0.05, 0.31, 0.57, 0.93]),
        "min_p": st.sampled_from([0.01, 0.2, 1.0]),
        "independent": st.just(1),
    },
)


@settings(max_examples=200)
@given(st.lists(ROW, min_size=1, max_size=4), st.integers(0, 10_000))
def test_each_row_is_the_definition_whatever_its_neighbours(
    rows: list[dict[str, float]], seed: int
) -> None:
    logits_NV = torch.randn(len(rows), V, generator=torch.Generator().manual_seed(seed)) * 3
    probs_NV = _whole(logits_NV, rows)
    for row, probs_V, logits_V in zip(rows, probs_NV.tolist(), logits_NV.tolist(), strict=True):
        expected = _by_definition(logits_V, row)
        # float64 against float64 sums in another order.
        assert probs_V == pytest.approx(expected, abs=1e-12)
        assert [p > 0 for p in probs_V] == [p > 0 for p in expected]


def test_top_p_keeps_the_token_that_crosses_the_threshold() -> None:
    logits_NV = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert (_whole(logits_NV, [{"top_p": 0.6}])[0] > 0).tolist() == [True, True, False, False]
    assert (_whole(logits_NV, [{"top_p": 0.4}])[0] > 0).tolist() == [True, False, False, False]


def test_modes_differ_in_where_top_p_measures_its_mass() -> None:
    logits_NV = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    row = {"top_k": 2, "top_p": 0.5}
    # Within the two: 4/7 already reaches one half. On the whole: 0.4 does not, 0.7 does.
    assert (_whole(logits_NV, [row])[0] > 0).tolist() == [True, False, False, False]
    assert (_whole(logits_NV, [{**row, "independent": 1}])[0] > 0).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_a_nucleus_wider_than_the_first_selection_is_found() -> None:
    logits_NV = torch.zeros(2, 5000)
    # Just off the round numbers, where the rounding of a sum of 2,500 terms cannot decide.
    rows = [{"top_p": 0.49999}, {"top_p": 0.09999}]
    assert [(row > 0).sum().item() for row in _whole(logits_NV, rows)] == [2500, 500]


def test_tiny_temperatures_do_not_overflow() -> None:
    logits_NV = torch.tensor([[1e4, 9e3, -1e4, float("-inf")]])
    assert _whole(logits_NV, [{"temperature": 1e-6, "top_k": 3}])[0].tolist() == [1, 0, 0, 0]
    assert full_distribution(logits_NV, torch.tensor([1e-6]))[0].tolist() == [1, 0, 0, 0]


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 2.0]), min_size=1, max_size=12), st.data())
def test_a_position_of_probability_zero_is_never_drawn(
    weights: list[float], data: st.DataObject
) -> None:
    if not any(weights):
        weights[0] = 1.0
    edge = st.sampled_from([0.0, 1 - 2**-53])
    u = data.draw(edge | st.floats(0, 1, exclude_max=True))
    position = draw(
        torch.tensor([weights], dtype=torch.float64), torch.tensor([u], dtype=torch.float64)
    )
    assert weights[int(position)] > 0


def test_draws_have_the_probabilities_of_the_distribution() -> None:
    probs_K = torch.tensor([0.5, 0.25, 0.0, 0.25], dtype=torch.float64)
    u_N = (torch.arange(1000).double() + 0.5) / 1000  # evenly spread, so the counts are exact
    drawn = draw(probs_K.expand(1000, 4), u_N)
    assert torch.bincount(drawn, minlength=4).tolist() == [500, 250, 0, 250]


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    temperature=st.floats(0.1, 5.0),
    top_k=st.integers(0, V + 5),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
)
def test_one_filter_after_another_is_what_transformers_does(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    """Top-k, then top-p on what is left, is `combined`; each alone is also min-p's."""
    logits_NV = torch.randn(3, V, generator=torch.Generator().manual_seed(seed)).double()
    ids_NV = torch.zeros(3, 1, dtype=torch.long)

    def by_transformers(*warpers: LogitsProcessor) -> Tensor:
        scores = TemperatureLogitsWarper(temperature)(ids_NV, logits_NV)
        for warper in warpers:
            scores = warper(ids_NV, scores)
        return scores.softmax(dim=1)

    first = [TopKLogitsWarper(top_k)] if top_k else []
    rows = [{"temperature": temperature, "top_k": top_k, "top_p": top_p}] * 3
    ours, theirs = _whole(logits_NV, rows), by_transformers(*first, TopPLogitsWarper(top_p))
    torch.testing.assert_close(ours, theirs)
    rows = [{"temperature": temperature, "top_k": top_k, "min_p": min_p}] * 3
    ours, theirs = _whole(logits_NV, rows), by_transformers(*first, MinPLogitsWarper(min_p))
    torch.testing.assert_close(ours, theirs)
