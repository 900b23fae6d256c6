from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tallyformer.doctor import Finding, examine
from tallyformer.model.device import VARIABLE, choose_device
from tallyformer.training.compiling import missing_tools


def compiler(folder: Path) -> Finding:
    return next(f for f in examine(folder, hub_seconds=0.1) if f.name == "torch.compile")


def test_the_doctor_names_each_tool_that_compiling_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert (compiler(tmp_path).state == "ok") == (not missing_tools(choose_device()))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = compiler(tmp_path)
    assert found.state == "limited"
    assert ("C++ compiler" in found.value) == (not torch.cuda.is_available())
    assert "sudo apt install g++" in found.fix


def test_the_doctor_names_the_device_and_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for wanted, state in (("cpu", "ok"), ("cuda:99", "missing")):
        monkeypatch.setenv(VARIABLE, wanted)
        found = next(f for f in examine(tmp_path) if f.name == "device")
        assert (found.state, wanted in found.value) == (state, True)
