"""What the device draws is what `torch_sampler` draws, at a vocabulary that is cut into groups."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.inference.engine.device_sampler import (
    CANDIDATES,
    GROUP,
    NOT_DRAWN,
    drawn,
    planned,
    room,
)
from tallyformer.inference.engine.runner import Choice, LogitsRow
from tallyformer.inference.engine.torch_sampler import choose
from tallyformer.inference.sampling_params import SamplingParams

V = 5003
"""More than `GROUP * CANDIDATES`, and not whole groups."""
TOO_WIDE: dict[str, Any] = {"top_p": 0.999, "temperature": 50.0}
KINDS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"top_k": 1},
    {"top_k": 20, "top_p": 0.9, "temperature": 0.7},
    {"top_k": CANDIDATES, "temperature": 3.0},
    {"top_k": CANDIDATES, "temperature": 50.0, "top_p": 0.95, "min_p": 0.01},
    {"mode": "independent", "top_k": 40, "top_p": 0.8},
    {"min_p": 0.1},
    {"top_p": 0.5},
    {"top_p": 0.4, "min_p": 0.02, "temperature": 0.8},
    TOO_WIDE,
]


@settings(deadline=None, max_examples=60)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=8),
    step=st.sampled_from([0.03125, 0.5, 2.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_the_draw_of_groups_is_the_samplers_though_many_logits_are_equal(
    kinds: list[dict[str, Any]], step: float, dtype: torch.dtype, seed: int
) -> None:
    """All rows but those that need more candidates than there are get their id."""
    assert V > GROUP * CANDIDATES and V % GROUP
    generator = torch.Generator().manual_seed(seed)
    numbers_NV = 3 * torch.randn(len(kinds), V, generator=generator)
    logits_NV = ((numbers_NV / step).round() * step).to(dtype)
    uniforms = torch.rand(len(kinds), generator=generator, dtype=torch.float64).tolist()
    rows = [
        LogitsRow(params=SamplingParams(**kind), counts={}, prompt_ids=[1], uniform=uniform)
        for kind, uniform in zip(kinds, uniforms, strict=True)
    ]
    places, settings_N6, method = planned(rows)
    assert places == list(range(len(rows)))
    beyond = room(V) - V
    with_room_NV = torch.nn.functional.pad(logits_NV, (0, beyond), value=-torch.inf)
    found = drawn(with_room_NV, torch.from_numpy(settings_N6), method).tolist()

    expected = choose(logits_NV, rows)
    for kind, token_id, choice in zip(kinds, found, expected, strict=True):
        assert isinstance(choice, Choice)
        assert token_id == (NOT_DRAWN if kind is TOO_WIDE else choice.id)
