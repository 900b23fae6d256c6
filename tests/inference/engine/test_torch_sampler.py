"""Laws of the choice of an id, with torch: those of transformers where it has the same method."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tallyformer.inference.distribution import greatest
from tallyformer.inference.engine.runner import LogitsRow
from tallyformer.inference.engine.torch_sampler import choose
from tallyformer.inference.sampling_params import SamplingParams

V = 40


def _row(uniform: float = 0.5, **fields: Any) -> LogitsRow:
    fields = {"params": SamplingParams(), "counts": {}, "prompt_ids": [1], **fields}
    return LogitsRow(uniform=uniform, **fields)


def _logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * 2


def _drawn(logits_V: torch.Tensor, count: int, **fields: Any) -> torch.Tensor:
    """How often each id comes for evenly spread random numbers, as shares (V,)."""
    rows = [_row((i + 0.5) / count, **fields) for i in range(count)]
    choices = choose(logits_V.expand(count, -1), rows)
    ids = torch.tensor([choice.id for choice in choices])
    return torch.bincount(ids, minlength=len(logits_V)) / count


_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.3, 1.0, 2.5]),
        "top_k": st.sampled_from([1, 3, 10, V]),
        "top_p": st.sampled_from([0.31, 0.83]),
        "repetition_penalty": st.sampled_from([0.8, 1.3]),
        "logit_bias": st.dictionaries(st.integers(0, V - 1), st.floats(-100, 100), max_size=3),
        "bad_token_ids": st.sets(st.integers(0, V - 1), max_size=5),
    },
)


@settings(deadline=None, max_examples=60)
@given(
    kinds=_SETTINGS,
    seed=st.integers(0, 2**31),
    prompt=st.lists(st.integers(0, V - 1), min_size=1, max_size=4),
    ends_banned=st.booleans(),
)
def test_an_id_is_drawn_as_often_as_transformers_gives_it_probability(
    kinds: dict[str, Any], seed: int, prompt: list[int], ends_banned: bool
) -> None:
    params = SamplingParams(**kinds)
    logits_V, ids = _logits(1, seed)[0], torch.tensor([prompt])
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(params.repetition_penalty)])
    if params.logit_bias:
        bias = {(token_id,): number for token_id, number in params.logit_bias.items()}
        processors.append(SequenceBiasLogitsProcessor(bias))
    banned = set(params.bad_token_ids)
    if banned:
        processors.append(NoBadWordsLogitsProcessor([[i] for i in banned], eos_token_id=None))
    if ends_banned:
        processors.append(MinNewTokensLengthLogitsProcessor(len(prompt), 3, [0, 7], device="cpu"))
        banned |= {0, 7}
    processors.append(TemperatureLogitsWarper(params.temperature))
    processors.append(TopKLogitsWarper(params.top_k or V))
    processors.append(TopPLogitsWarper(params.top_p))
    expected_V = processors(ids, logits_V[None].clone()).softmax(dim=1)[0]
    share_V = _drawn(logits_V, 1000, params=params, prompt_ids=prompt, banned=banned)
    # The borders of an id's interval of random numbers cut off at most one of them each.
    torch.testing.assert_close(share_V, expected_V, atol=1.5e-3, rtol=0)
    assert not (share_V[expected_V == 0] > 0).any()


def test_min_p_is_that_of_transformers() -> None:
    logits_V = _logits(1)[0]
    expected_V = MinPLogitsWarper(0.2)(torch.zeros(1, 1), logits_V[None]).softmax(dim=1)[0]
    share_V = _drawn(logits_V, 1000, params=SamplingParams(min_p=0.2))
    torch.testing.assert_close(share_V, expected_V, atol=1.5e-3, rtol=0)


def test_penalties_are_subtracted_from_generated_ids_alone() -> None:
    params = SamplingParams(frequency_penalty=0.5, presence_penalty=0.25)
    logits_V = torch.zeros(V)
    share_V = _drawn(logits_V, 4000, params=params, counts={1: 3, 2: 1}, prompt_ids=[4])
    expected_V = torch.zeros(V)
    expected_V[1], expected_V[2] = -1.75, -0.75
    torch.testing.assert_close(share_V, expected_V.softmax(dim=0), atol=4e-4, rtol=0)
    assert not logits_V.any()


def test_a_million_draws_pass_a_chi_square_test() -> None:
    logits_V = _logits(1)[0]
    numbers = np.random.default_rng(0).random(1_000_000)
    params = SamplingParams(temperature=1.5, top_k=30, top_p=0.95)
    counts = torch.zeros(V, dtype=torch.long)
    for part in np.split(numbers, 50):
        rows = [_row(float(u), params=params) for u in part]
        ids = [choice.id for choice in choose(logits_V.expand(len(rows), -1), rows)]
        counts += torch.bincount(torch.tensor(ids), minlength=V)
    warped = LogitsProcessorList(
        [TemperatureLogitsWarper(1.5), TopKLogitsWarper(30), TopPLogitsWarper(0.95)]
    )
    expected_V = warped(torch.zeros(1, 1), logits_V[None]).double().softmax(dim=1)[0] * 1_000_000
    kept = expected_V > 0
    assert not counts[~kept].any()
    chi_square = float(((counts[kept] - expected_V[kept]) ** 2 / expected_V[kept]).sum())
    freedom = int(kept.sum()) - 1
    # Five standard deviations above the mean of the distribution.
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


@settings(deadline=None)
@given(
    vocabulary=st.integers(1, 600),
    count=st.integers(1, 600),
    seed=st.integers(0, 2**31),
    distinct=st.integers(1, 400),
)
def test_the_greatest_are_those_of_a_sort_and_of_equal_ones_the_first(
    vocabulary: int, count: int, seed: int, distinct: int
) -> None:
    numbers = torch.Generator().manual_seed(seed)
    logits_NV = torch.randint(-distinct, distinct, (3, vocabulary), generator=numbers) / 8
    logits_NV[:, ::7] = -torch.inf
    count = min(count, vocabulary)
    values_NK, ids_NK = greatest(logits_NV, count)
    expected = logits_NV.sort(dim=1, descending=True, stable=True)
    assert torch.equal(ids_NK, expected.indices[:, :count])
    assert torch.equal(values_NK, expected.values[:, :count])


def test_a_choice_does_not_depend_on_the_other_rows() -> None:
    kinds = [
        SamplingParams(temperature=0),
        SamplingParams(),
        SamplingParams(top_k=3),
        SamplingParams(top_p=0.5, repetition_penalty=1.5),
        SamplingParams(min_p=0.1, frequency_penalty=1.0, logit_bias={3: 5.0}),
        SamplingParams(top_k=30, top_p=0.9, mode="independent"),
    ]
    words = np.array([0x0F0F0F0F, 0xFF], np.uint32)
    rows = [
        _row(
            i / 36,
            params=kinds[i % 6],
            counts={2: 3},
            banned=[5] * (i % 4),
            allowed=words if i % 5 == 1 else None,
            logprobs=i % 3 or None,
            given=9 if i % 7 == 6 else None,
        )
        for i in range(36)
    ]
    # Few different values, so that some are equal.
    logits_NV = (_logits(36) * 2).round()
    together = choose(logits_NV, rows)
    assert together == [choose(logits_NV[i : i + 1], [rows[i]])[0] for i in range(36)]


def test_log_probabilities_are_the_models_own_whatever_the_settings() -> None:
    logits_NV = _logits(2)
    expected_NV = logits_NV.double().log_softmax(dim=1)
    params = SamplingParams(temperature=0.3, top_k=2, presence_penalty=2.0)
    wanted = [_row(params=params, logprobs=3, banned={5}), _row(params=params)]
    choice, bare = choose(logits_NV, wanted)
    assert choice.logprob == pytest.approx(expected_NV[0, choice.id].item(), abs=1e-12)
    values, ids = expected_NV[0].topk(3)
    assert [i for i, _ in choice.alternatives] == ids.tolist()
    assert [p for _, p in choice.alternatives] == pytest.approx(values.tolist(), abs=1e-12)
    assert bare.logprob is None and bare.alternatives == ()


def test_a_given_id_is_scored_and_not_drawn() -> None:
    logits_NV = _logits(1)
    [choice] = choose(logits_NV, [_row(given=7, logprobs=0, banned=[7])])
    assert (choice.id, choice.alternatives) == (7, ())
    expected = logits_NV.double().log_softmax(dim=1)[0, 7].item()
    assert choice.logprob == pytest.approx(expected, abs=1e-12)


def test_banned_ids_and_those_outside_the_mask_are_never_drawn() -> None:
    words = np.array([0b1011_0000, 0b11], np.uint32)  # ids 4, 5, 7, 32, 33
    for params in (SamplingParams(), SamplingParams(temperature=0), SamplingParams(top_p=0.9)):
        share_V = _drawn(_logits(1)[0], 200, params=params, allowed=words, banned=[5])
        assert set(share_V.nonzero().flatten().tolist()) <= {4, 7, 32, 33}
