from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.config.training import ScheduleSection
from tallyformer.training.schedules import learning_rate_factor

warm_ups = st.sampled_from([0.0, 0.02, 0.1, 0.5, 0.95])
ends = st.sampled_from([0.0, 0.1, 1.0])
schedules = st.one_of(
    st.builds(
        ScheduleSection,
        name=st.sampled_from(["onecycle", "constant"]),
        warmup_fraction=warm_ups,
    ),
    st.builds(
        ScheduleSection,
        name=st.sampled_from(["cosine", "linear"]),
        warmup_fraction=warm_ups,
        final_fraction=ends,
    ),
    st.builds(
        ScheduleSection,
        name=st.just("wsd"),
        warmup_fraction=warm_ups,
        final_fraction=ends,
        decay_fraction=st.sampled_from([0.01, 0.2, 1.0]),
    ),
)


def factors(schedule: ScheduleSection, total: int) -> list[float]:
    return [learning_rate_factor(schedule, step, total) for step in range(total)]


@given(schedules, st.integers(1, 300))
def test_every_factor_is_a_share_and_only_one_peak_exists(schedule, total):
    values = factors(schedule, total)
    assert all(0 <= value <= 1 for value in values)
    top = values.index(max(values))
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)


@given(st.integers(11, 300), st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([4.0, 20.0, 25.0]))
def test_onecycle_equals_torch(total, warmup, div):
    schedule = ScheduleSection(name="onecycle", warmup_fraction=warmup, div=div, final_div=1e4)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=total,
        pct_start=warmup,
        div_factor=div,
        final_div_factor=1e4,
        cycle_momentum=False,
    )
    expected = []
    with warnings.catch_warnings():  # no optimizer step is taken: only the rates matter
        warnings.simplefilter("ignore")
        for _ in range(total):
            expected.append(optimizer.param_groups[0]["lr"])
            theirs.step() if len(expected) < total else None
    assert factors(schedule, total) == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_warm_up_rises_by_equal_steps_to_the_top_and_the_end_is_near_the_final_share(name):
    values = factors(ScheduleSection(name=name, warmup_fraction=0.1, final_fraction=0.2), 100)
    assert values[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert values[10] == 1
    assert values[-1] == pytest.approx(0.2, abs=0.02)


def test_cosine_is_half_way_in_the_middle():
    values = factors(ScheduleSection(name="cosine", warmup_fraction=0.0), 100)
    assert values[50] == pytest.approx(0.5)


def test_wsd_is_flat_until_its_last_part():
    schedule = ScheduleSection(name="wsd", warmup_fraction=0.1, decay_fraction=0.3)
    values = factors(schedule, 100)
    assert set(values[9:71]) == {1.0}
    assert values[71:] == pytest.approx([1 - i / 30 for i in range(1, 30)])


def test_a_step_beyond_the_run_is_a_programming_error():
    with pytest.raises(ValueError, match="outside"):
        learning_rate_factor(ScheduleSection(), 10, 10)
