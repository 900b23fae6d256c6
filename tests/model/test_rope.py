"""Rotary positions: the laws that make them relative."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.rope import TallyFormerRotaryEmbedding, rotate

LAYOUTS = ("interleaved", "half")


def embedding(head_size: int, theta: float = 10_000.0, **overrides) -> TallyFormerRotaryEmbedding:
    return TallyFormerRotaryEmbedding(
        TallyFormerConfig(
            hidden_size=head_size, num_attention_heads=1, rope_theta=theta, **overrides
        )
    )


def turned(x: torch.Tensor, position: int, layout: str, **kwargs) -> torch.Tensor:
    cos, sin = embedding(x.shape[-1], **kwargs)(x, torch.tensor([[position]]))
    return rotate(x[None, None, None], cos, sin, layout)[0, 0, 0]


vectors = st.integers(1, 6).flatmap(
    lambda pairs: st.lists(st.floats(-4, 4, width=32), min_size=4 * pairs, max_size=4 * pairs)
)


@settings(max_examples=60, deadline=None)
@given(vectors, st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_score_depends_on_the_distance_alone(layout, numbers, t, s, shift):
    q, k = torch.tensor(numbers).chunk(2)
    here = turned(q, t, layout) @ turned(k, s, layout)
    there = turned(q, t + shift, layout) @ turned(k, s + shift, layout)
    # Angles up to 1000 are rounded to 2**-14 of a radian in float32, vectors are up to 4 long.
    assert there == pytest.approx(here.item(), abs=1e-4 * len(numbers) * 16)


@settings(max_examples=60, deadline=None)
@given(vectors, st.integers(0, 500))
def test_interleaved_is_half_with_the_channels_permuted(numbers, t):
    x = torch.tensor(numbers)
    evens_then_odds = torch.cat((x[0::2], x[1::2]))
    assert torch.equal(turned(x, t, "interleaved"), turned(evens_then_odds, t, "half"))


@settings(max_examples=60, deadline=None)
@given(vectors, st.integers(0, 500))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_turning_keeps_the_length(layout, numbers, t):
    x = torch.tensor(numbers)
    assert turned(x, t, layout).norm().item() == pytest.approx(x.norm().item(), rel=1e-5, abs=1e-6)


def test_interleaved_turns_each_pair_by_its_own_angle():
    # The textbook form, pair by pair, in float64; only the order of the channels is ours.
    x, t, theta = torch.randn(8, dtype=torch.float64), 7, 100.0
    first, second = [], []
    for r in range(4):
        angle = torch.tensor(t * theta ** (-2 * r / 8), dtype=torch.float64)
        a, b = x[2 * r], x[2 * r + 1]
        first.append(a * angle.cos() - b * angle.sin())
        second.append(b * angle.cos() + a * angle.sin())
    wanted = torch.stack(first + second)
    got = turned(x, t, "interleaved", theta=theta)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)  # the angles are float32


def test_the_frequencies_stay_exact_when_the_model_is_cast():
    rotary = embedding(64)
    exact = rotary.inv_freq.clone()
    rotary.to(torch.bfloat16)
    assert rotary.inv_freq.dtype == torch.float32
    assert torch.equal(rotary.inv_freq, exact)
    cos, _ = rotary(torch.zeros(1, dtype=torch.bfloat16), torch.tensor([[255]]))
    assert cos.dtype == torch.bfloat16


def test_linear_scaling_reaches_position_ten_with_the_angle_of_position_one():
    plain = embedding(16)
    scaled = embedding(16, rope_parameters={"rope_type": "linear", "factor": 10.0})
    x = torch.zeros(1)
    one, ten = torch.tensor([[1]]), torch.tensor([[10]])
    torch.testing.assert_close(scaled(x, ten), plain(x, one))
