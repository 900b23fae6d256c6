"""Laws of the native choice of an id: those of the torch sampler, id by id."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.errors import CheckpointError, InvalidRequestError
from tallyformer.inference.engine import torch_sampler
from tallyformer.inference.engine.runner import LogitsRow
from tallyformer.inference.native.runner import NativeRunner
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.shape import ModelShape, shape_of

V = 2600  # more than the sampler's first width, and no whole number of registers


@pytest.fixture(scope="module")
def runner() -> NativeRunner:
    return _runner(V)


def _runner(vocab: int) -> NativeRunner:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    shape: ModelShape = shape_of(
        {"model_type": "tallyformer", "vocab_size": vocab, "intermediate_size": 8, **sizes}
    )
    tensors = {name: np.ones(size, np.float32) for name, size in shape.tensors().items()}
    return NativeRunner(shape, tensors.__getitem__, dtype="float32", vocab_size=vocab, threads=2)


def _row(uniform: float = 0.5, **fields: object) -> LogitsRow:
    given = {"params": SamplingParams(), "counts": {}, "prompt_ids": [1], **fields}
    return LogitsRow(uniform=uniform, **given)  # type: ignore[arg-type]


def _logits(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (rows, V)).astype(np.float32)


def _both(
    runner: NativeRunner, logits: np.ndarray, rows: list[LogitsRow]
) -> tuple[list[Any], list[Any]]:
    return (
        runner.choose(logits.copy(), rows),
        torch_sampler.choose(torch.from_numpy(logits.copy()), rows),
    )


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    # Above, rounding decides among ids that are next to impossible.
    uniform=st.floats(0, 0.99999),
    temperature=st.sampled_from([0.0, 1e-3, 0.4, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 2, 50, 1500, V, V + 10]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    mode=st.sampled_from(["combined", "independent"]),
    penalty=st.sampled_from([0.0, 0.7]),
    banned=st.sets(st.integers(0, V - 1), max_size=3),
    masked=st.booleans(),
)
def test_it_chooses_what_the_torch_sampler_chooses(
    runner: NativeRunner,
    seed: int,
    uniform: float,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    mode: str,
    penalty: float,
    banned: set[int],
    masked: bool,
) -> None:
    params = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        mode=mode,  # type: ignore[arg-type]
        frequency_penalty=penalty,
        presence_penalty=-penalty / 2,
    )
    words = np.random.default_rng(seed).integers(0, 2**32, (V + 31) // 32, np.uint32)
    row = _row(
        uniform,
        params=params,
        counts={3: 2, 70: 1, V - 1: 4},
        banned=banned,
        allowed=words if masked else None,
        logprobs=2,
    )
    [ours], [torchs] = _both(runner, _logits(1, seed), [row])
    # A number within rounding of a border between two ids may draw either of them.
    assert ours.id == torchs.id or _near_border(runner, row, seed, ours.id, torchs.id)
    if ours.id == torchs.id:
        assert ours.logprob == pytest.approx(torchs.logprob, abs=2e-6)
    assert [i for i, _ in ours.alternatives] == [i for i, _ in torchs.alternatives]


def _near_border(runner: NativeRunner, row: LogitsRow, seed: int, ours: int, torchs: int) -> bool:
    import dataclasses

    near = [
        dataclasses.replace(row, uniform=min(max(row.uniform + d, 0.0), 1 - 1e-9))
        for d in (-2e-6, 2e-6)
    ]
    logits = _logits(1, seed)
    return {runner.choose(logits.copy(), [r])[0].id for r in near} >= {ours, torchs} or any(
        torch_sampler.choose(torch.from_numpy(logits.copy()), [r])[0].id == ours for r in near
    )


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(top_k=20),
        SamplingParams(top_p=0.8, temperature=1.5),
        SamplingParams(top_k=30, top_p=0.9, mode="independent"),
        SamplingParams(min_p=0.02),
    ],
    ids=str,
)
def test_a_million_draws_have_the_distribution(
    runner: NativeRunner, params: SamplingParams
) -> None:
    logits = _logits(1, 5) / 2
    expected = _expected(logits[0], params)
    draws, batch = 1_000_000, 20_000
    uniforms = np.random.default_rng(1).random(draws)
    counts = np.zeros(V)
    one = np.ascontiguousarray(np.broadcast_to(logits, (batch, V)))
    for start in range(0, draws, batch):
        rows = [_row(float(u), params=params) for u in uniforms[start : start + batch]]
        ids = [choice.id for choice in runner.choose(one, rows)]
        counts += np.bincount(ids, minlength=V)
    assert counts[expected == 0].sum() == 0
    # Ids that are expected fewer than 20 times are counted together.
    common = expected * draws >= 20
    seen = [*counts[common], counts[~common].sum()]
    hoped = [*(expected[common] * draws), expected[~common].sum() * draws]
    pairs = [(s, h) for s, h in zip(seen, hoped, strict=True) if h >= 20]
    chi = sum((s - h) ** 2 / h for s, h in pairs)
    freedom = len(pairs) - 1
    # Six standard deviations above the mean of a chi-square distribution.
    assert chi < freedom + 6 * (2 * freedom) ** 0.5


def _expected(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    from tallyformer.inference.distribution import Filters, candidates

    number = torch.tensor([0.0], dtype=torch.float64)
    filters = Filters(
        temperature=number + params.temperature,
        top_k=(number + params.top_k).long(),
        top_p=number + params.top_p,
        min_p=number + params.min_p,
        independent=torch.tensor([params.mode == "independent"]),
    )
    ids, probs = candidates(torch.from_numpy(logits)[None], filters)
    expected = np.zeros(len(logits))
    expected[ids[0].numpy()] = probs[0].numpy()
    return expected


def test_a_given_id_is_scored_and_not_drawn(runner: NativeRunner) -> None:
    logits = _logits(1)
    [ours], [torchs] = _both(runner, logits, [_row(given=7, logprobs=0)])
    assert (ours.id, ours.alternatives) == (7, ())
    assert ours.logprob == pytest.approx(torchs.logprob, abs=2e-6)


_SETTINGS = [
    SamplingParams(temperature=0),
    SamplingParams(),
    SamplingParams(top_k=40),
    SamplingParams(top_p=0.9),
    SamplingParams(min_p=0.1, top_k=2000, top_p=0.5, mode="independent"),
]


@pytest.mark.parametrize("place", [0, 17, V - 1])
@pytest.mark.parametrize("params", _SETTINGS)
def test_a_row_that_is_not_finite_or_lets_nothing_follow_fails_alone(
    runner: NativeRunner, params: SamplingParams, place: int
) -> None:
    logits = _logits(9)
    logits[1, place], logits[3, place] = np.nan, np.inf
    logits[5] = -np.inf
    logits[7] = 3e38
    nothing = np.zeros((V + 31) // 32, np.uint32)
    rows = [_row(0.3, params=params, logprobs=3) for _ in range(9)]
    rows[6] = _row(0.3, params=params, allowed=nothing)
    # What is divided by so little is no number any more.
    rows[7] = _row(0.3, params=dataclasses.replace(params, repetition_penalty=0.01), prompt_ids=[4])
    rows[8] = _row(0.3, params=params, banned=range(V))
    alone = [_both(runner, logits[i : i + 1], [rows[i]]) for i in (0, 2, 4)]
    for which, chosen in enumerate(_both(runner, logits, rows)):
        for i in (1, 3, 5, 7):
            assert isinstance(chosen[i], CheckpointError) and "not finite" in str(chosen[i])
        for i in (6, 8):
            assert isinstance(chosen[i], InvalidRequestError)
            assert "no id may follow" in str(chosen[i])
        assert [chosen[i] for i in (0, 2, 4)] == [both[which][0] for both in alone]


@pytest.mark.parametrize("params", _SETTINGS)
def test_what_weighs_nothing_is_never_drawn_and_equal_ones_share_alike(
    runner: NativeRunner, params: SamplingParams
) -> None:
    """-infinity is an id that never follows; of 5 equal ones each has a fifth."""
    logits = np.full((1, V), -np.inf, np.float32)
    equal = [3, 64, 1025, 2048, V - 1]
    logits[0, equal] = 2.5
    plain = dataclasses.replace(params, top_p=1.0)
    for step in range(10):
        rows = [_row((step + 0.5) / 10, params=plain, logprobs=2)]
        for [choice] in _both(runner, logits, rows):
            assert choice.id == (equal[0] if params.greedy else equal[step // 2])
            assert choice.logprob == pytest.approx(np.log(0.2))
            assert [i for i, _ in choice.alternatives] == equal[:2]


def test_a_row_does_not_depend_on_others(runner: NativeRunner) -> None:
    logits = _logits(64)
    params = [SamplingParams(top_k=k, top_p=p) for k in (0, 5, 50, 2000) for p in (0.5, 1.0)] * 8
    rows = [_row((i + 0.5) / 64, params=p) for i, p in enumerate(params)]
    together = [c.id for c in runner.choose(logits.copy(), rows)]
    alone = [runner.choose(logits[i : i + 1].copy(), [row])[0].id for i, row in enumerate(rows)]
    assert together == alone


def test_any_number_of_rows_is_chosen_at_once() -> None:
    """More than the threads' ticket counts."""
    rows, vocab = 66_000, 8
    logits = np.zeros((rows, vocab), np.float32)
    wanted = np.arange(rows) % vocab
    logits[np.arange(rows), wanted] = 1
    row = _row(params=SamplingParams(temperature=0))
    chosen = _runner(vocab).choose(logits, [row] * rows)
    assert [choice.id for choice in chosen] == wanted.tolist()
