"""What is compiled, when, with which tools; and that compiled runs continue as they began."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from tallyformer.errors import Interrupted, TrainingError
from tallyformer.training.compiling import (
    compile_blocks,
    compiler_works,
    forget_compiled,
    missing_tools,
    uncompile_blocks,
    wants_compile,
)
from tallyformer.training.distillation import DistillationLoss, DistillationWeights
from tallyformer.training.loop import train
from tallyformer.training.teacher import Teacher

from .jobs import VOCABULARY, RandomBatches, fingerprint, job, run, tiny_model
from .test_loop import Stopping, assert_same, final_state

# torch's own tracing asks every tensor for a gradient.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
needs_compiler = pytest.mark.skipif(not compiler_works(CPU), reason="needs a compiler")
IDS = torch.arange(24).reshape(2, 12)


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    (tmp_path / "Python.h").touch()
    return tmp_path


@pytest.fixture
def tools(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where programs are found."""
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", str(folder))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return folder


def program(folder: Path, name: str) -> Path:
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def missing(device: torch.device, headers: Path) -> list[str]:
    return [tool.name for tool in missing_tools(device, headers) if tool.name != "Triton"]


@pytest.mark.parametrize(
    ("device", "variable", "compilers", "name"),
    [
        (CPU, "CXX", ["g++"], "a C++ compiler"),
        (GPU, "CC", ["gcc", "clang"], "a C compiler"),
    ],
)
def test_a_compiler_is_found_where_torch_looks_for_one(
    device, variable, compilers, name, tools, headers, monkeypatch
):
    assert missing(device, headers) == [name]
    for compiler in compilers:
        file = program(tools, compiler)
        assert missing(device, headers) == []
        file.unlink()
    chosen = program(tools, "mine")
    monkeypatch.setenv(variable, str(chosen))
    assert missing(device, headers) == []
    program(tools, compilers[0])
    monkeypatch.setenv(variable, "nowhere")
    assert missing(device, headers) == [name]


@pytest.mark.parametrize("device", [CPU, GPU])
def test_pythons_headers_are_needed_for_every_device(device, tools, tmp_path):
    for name in ("g++", "gcc"):
        program(tools, name)
    assert missing(device, tmp_path / "none") == ["Python.h"]


def test_a_gpu_needs_triton_too(tools, headers):
    names = [tool.name for tool in missing_tools(GPU, headers)]
    assert ("Triton" in names) == (not torch.cuda.is_available())


def test_compile_on_without_tools_says_what_to_install(tools):
    assert not wants_compile("auto", CPU, 1e20)
    with pytest.raises(TrainingError) as error:
        wants_compile("on", CPU, 1e20)
    assert str(error.value).startswith("compile: on needs what torch.compile needs: a C++ compiler")
    assert "apt install g++" in str(error.value)
    assert str(error.value).endswith("or set compile: auto")


@needs_compiler
def test_compiled_blocks_compute_the_same_and_can_be_undone():
    model = tiny_model(initializer_range=0.3).eval()
    eager = model(IDS).logits
    forget_compiled()
    compile_blocks(model)
    fused = model(IDS).logits
    # Fused kernels round in another order.
    torch.testing.assert_close(fused, eager, rtol=1e-4, atol=1e-5)
    assert not torch.equal(fused, eager)
    uncompile_blocks(model)
    assert torch.equal(model(IDS).logits, eager)


@needs_compiler
def test_a_resumed_compiled_run_equals_an_uninterrupted_one(tmp_path):
    how = {"compile": "on", "steps": 8, "evaluations": 2}
    result, _ = run(tmp_path / "whole", **how)
    assert result.compiled
    with pytest.raises(Interrupted):
        train(job(tmp_path / "stopped", train_source=Stopping(9), **how))
    run(tmp_path / "stopped", **how)
    assert_same(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole"))


@needs_compiler
def test_a_compiled_run_is_not_gone_on_with_where_nothing_compiles(tmp_path, monkeypatch):
    how = {"compile": "on", "steps": 2, "evaluations": 1}
    with pytest.raises(Interrupted):
        train(job(tmp_path, train_source=Stopping(0), **how))
    monkeypatch.setenv("CXX", "nowhere")
    with pytest.raises(TrainingError, match=r"began compiled .*CXX is 'nowhere'.*where it began"):
        train(job(tmp_path, **how))


def distillation(
    folder: Path, teacher: Teacher, compile_: str, source: Any = None
) -> dict[str, Any]:
    one = job(folder, train_source=source, compile=compile_, steps=6, evaluations=2)
    weights = DistillationWeights(2.0, 0.7, 1e-4)
    one = dataclasses.replace(
        one,
        make_loss=lambda model, compiled: DistillationLoss(
            model, teacher, weights, compiled=compiled
        ),
    )
    train(one)
    return {**final_state(folder), "weights": fingerprint(one.model)}


def teacher() -> Teacher:
    return Teacher(tiny_model(hidden_size=24, initializer_range=0.3), VOCABULARY, "tiny")


@needs_compiler
@pytest.mark.parametrize("second", ["off", "on"])
def test_a_resumed_second_phase_equals_one_that_followed_the_first(tmp_path, second):
    """The first phase compiles the teacher that both share, on batches of another size."""
    shared = teacher()
    distillation(tmp_path / "first", shared, "on", RandomBatches(rows=3))
    whole = distillation(tmp_path / "whole", shared, second)
    with pytest.raises(Interrupted):
        distillation(tmp_path / "stopped", shared, second, Stopping(5))
    resumed = distillation(tmp_path / "stopped", teacher(), second)
    assert_same(resumed, whole)
    assert resumed["weights"] == whole["weights"]
