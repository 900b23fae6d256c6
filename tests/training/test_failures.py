from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tallyformer.errors import TrainingError
from tallyformer.training.failures import memory_errors, not_finite
from tallyformer.training.loop import train
from tallyformer.training.losses import NextTokenLoss

from .jobs import job, section


def test_a_want_of_memory_names_step_amount_and_both_ways_on(tmp_path):
    one = job(tmp_path, micro_batch=12, gradient_accumulation=2)

    class Greedy(NextTokenLoss):
        calls = 0

        def forward(self, inputs, scale, precision):
            if self.calls == 5:
                torch.empty(2**60)
            self.calls += 1
            return super().forward(inputs, scale, precision)

    with pytest.raises(TrainingError) as error:
        train(dataclasses.replace(one, make_loss=lambda model, compiled: Greedy(model)))
    assert str(error.value) == (
        f"pretrain: after 2 of 20 steps: out of memory ({2**62} bytes more were asked for). "
        "Start this stage again with the same step in smaller parts, and once more if they are "
        "still too large: "
        "RESTART {'micro_batch': 6, 'gradient_accumulation': 4}. Where more memory is free, "
        "resume with: tallyformer pretrain --resume"
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [(9, "{'micro_batch': 3, 'gradient_accumulation': 6}"), (1, "micro_batch is 1 already")],
)
def test_the_error_of_a_gpu_is_understood(rows, words):
    text = "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79.1 GiB"
    how = section(micro_batch=rows)
    with (
        pytest.raises(TrainingError, match=rf"distill 1: out of memory \(20.50 GiB more.*{words}"),
        memory_errors(lambda: "distill 1", how, "resume", str),
    ):
        raise torch.OutOfMemoryError(text)


def test_a_kernel_that_finds_no_memory_is_understood():
    with (
        pytest.raises(TrainingError, match=r"distill 1: out of memory\. Start this stage again"),
        memory_errors(lambda: "distill 1", section(), "resume", str),
    ):
        raise RuntimeError("could not create a primitive")


def test_other_errors_stay_what_they_are():
    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        memory_errors(lambda: "pretrain", section(), "resume", str),
    ):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_a_lower_learning_rate_starts_again_since_the_same_settings_would_fail_again():
    for last in (None, Path("runs/x/checkpoints/last")):
        text = str(
            not_finite(
                "pretrain: step 3", "the loss", documents="a, b", last=last, rate=8e-4, restart=str
            )
        )
        assert text.endswith(
            "again with a lower optimizer.learning_rate: {'optimizer.learning_rate': 8e-05}"
        )
        assert (str(last) in text) == (last is not None)
        assert ("no checkpoint yet" in text) == (last is None)
