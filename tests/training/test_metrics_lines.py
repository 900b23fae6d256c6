"""What a line of training metrics stands for: its steps, and its floating-point operations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.model.flops import flops_per_token, head_flops
from tallyformer.training.loop import train
from tallyformer.training.metrics import read_metrics

from .jobs import CONTEXT, RandomBatches, job, tiny_model


class HalfLabelled(RandomBatches):
    """Every second position has no label, as the questions of conversations have none."""

    def batch(self, index: int) -> Batch:
        whole = super().batch(index)
        labels = whole.labels.clone()
        labels[:, ::2] = IGNORED
        return replace(whole, labels=labels)


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "train"]


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [
        (22, 10, [10, 22]),
        (25, 10, [10, 20, 25]),
        (20, 10, [10, 20]),
        (4, 10, [4]),
        (5, 1, [1, 2, 3, 4, 5]),
    ],
)
def test_no_line_is_of_a_few_last_steps_alone(
    tmp_path: Path, steps: int, every: int, expected: list[int]
) -> None:
    train(job(tmp_path, steps=steps, log_every=every, evaluations=1, gradient_accumulation=1))
    assert [line["step"] for line in _lines(tmp_path)] == expected


def test_the_head_counts_for_positions_with_a_label_alone(tmp_path: Path) -> None:
    one = job(tmp_path, train_source=HalfLabelled(ignored=0), steps=4, log_every=2)
    train(replace(one, flops_per_token=1e8, head_flops=8e7))
    for line in _lines(tmp_path):
        a_token = line["mfu"] * line["peak_flops"] / line["tokens_per_second"]
        # Half of the 8e7 are left; the figures of a line are rounded.
        assert a_token == pytest.approx(6e7, rel=0.01)


def test_flops_agree_with_torchs_own_counter_when_some_positions_have_labels() -> None:
    model = tiny_model(num_hidden_layers=8)
    model.set_attn_implementation("eager")
    ids = torch.arange(2 * CONTEXT).reshape(2, CONTEXT) % 50
    labelled = slice(0, len(ids.flatten()), 4)
    counter = FlopCounterMode(display=False)
    with counter:
        hidden = model.model(ids).last_hidden_state.flatten(0, 1)
        model.lm_head(hidden[labelled]).sum().backward()
    head, tokens = head_flops(model.config), ids.numel()
    ours = tokens * (flops_per_token(model.config, CONTEXT) - head) + tokens / 4 * head
    # Eager attention computes every score, the formula the causal half: the difference is known.
    whole = 8 * 4 * 16 * (CONTEXT - (CONTEXT + 1) / 2) * 3 * tokens
    assert counter.get_total_flops() == pytest.approx(ours + whole, rel=1e-9)
