from __future__ import annotations

from typing import Any

import pytest
import torch

from tallyformer.errors import UsageError
from tallyformer.model.device import VARIABLE, choose_device


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_gpu_is_chosen_before_the_cpu() -> None:
    gpu = torch.accelerator.current_accelerator(check_available=True)
    assert choose_device().type == (gpu.type if gpu else "cpu")


@pytest.mark.parametrize("wanted", ["cpu", torch.device("cpu"), "cpu:0"])
def test_the_device_that_is_asked_for_is_taken(wanted: Any) -> None:
    assert choose_device(wanted) == torch.device(wanted)


UNUSABLE = [
    ("warp", "'warp' is unknown. Use one of: cpu, mps, cuda"),
    ("meta", "'meta' is unknown"),
    ("", "'' is unknown"),
    (1.5, "'1.5' is unknown"),
    ("cuda:99", "'cuda:99', but torch finds"),
    ("cpu:1", "'cpu:1', but torch finds 1 of them"),
]


@pytest.mark.parametrize(("wanted", "message"), UNUSABLE)
def test_a_device_that_is_not_there_is_refused_in_one_line(wanted: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^device: {message}") as caught:
        choose_device(wanted)
    assert "\n" not in str(caught.value)


def test_the_environment_names_the_device_where_the_caller_names_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "cpu:1")
    with pytest.raises(UsageError, match=f"^{VARIABLE}: 'cpu:1', but torch finds 1 of them"):
        choose_device()
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setenv(VARIABLE, "cpu")
    assert choose_device().type == "cpu"
