from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tallyformer.doctor import Finding, examine
from tallyformer.inference.native.build import BuildError, library_file
from tallyformer.inference.native_model import library_problem
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


def test_the_doctor_says_what_became_of_the_native_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TALLYFORMER_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error: too old' >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)

    def native() -> Finding:
        return next(f for f in examine(tmp_path, hub_seconds=0.1) if f.name == "native runner")

    monkeypatch.setenv("CXX", str(broken))
    assert native().state == "ok" and f"at its first use, once, by {broken}" in native().value
    with pytest.raises(BuildError, match="too old"):
        library_file()
    found = native()
    assert found.state == "limited" and "torch answers" in found.value and "too old" in found.fix
    # Nobody is told of a build that will not be.
    assert "too old" in str(library_problem()) and not caplog.records
    monkeypatch.setenv("CXX", "/nowhere/c++")
    found = native()
    assert found.state == "limited" and "there is no such program" in found.fix
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch", None)
        assert native().state == "missing" and "nothing answers" in native().value
    # Another compiler would be tried.
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ziglang", None)
    found = native()
    assert found.state == "limited" and "no C++ compiler" in found.fix


def test_the_doctor_counts_the_cores_that_are_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = next(f for f in examine(tmp_path, hub_seconds=0.1) if f.name == "cores")
    assert found.value == "1 usable"
