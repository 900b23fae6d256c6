from __future__ import annotations

import json
import random
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.config.training import OptimizerSection
from tallyformer.errors import ArtifactError, CheckpointError
from tallyformer.training.checkpoints import (
    Checkpoints,
    Snapshot,
    model_tensors,
    optimizer_tensors,
    restore,
)
from tallyformer.training.optimizers import build_optimizer
from tallyformer.training.random_state import (
    preserved_random_states,
    random_states,
    seed_everything,
    set_random_states,
)

from .jobs import tiny_model

CPU = torch.device("cpu")


def snapshot(step: int) -> Snapshot:
    tensors = {
        "model": {"w": torch.full((3, 2), float(step))},
        "optimizer": {"w:step": torch.tensor(float(step))},
        "random": {"torch": torch.arange(4, dtype=torch.uint8)},
    }
    return Snapshot(tensors, {"step": step, "best": {"loss": 0.1 + 0.2}})


def step_of(checkpoints: Checkpoints) -> int:
    found = checkpoints.load()
    assert found is not None
    return int(found.state["step"])


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path, "resume")
    assert checkpoints.load() is None
    saved = snapshot(7)
    checkpoints.save(saved)
    found = checkpoints.load()
    assert found is not None
    assert found.state == saved.state
    for file, tensors in saved.tensors.items():
        assert found.tensors[file].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found.tensors[file][name].dtype == tensor.dtype
            assert torch.equal(found.tensors[file][name], tensor)


def test_the_last_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, "resume")
    for step in (1, 2, 3):
        checkpoints.save(snapshot(step))
    assert step_of(checkpoints) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "previous"]
    checkpoints.last.rename(tmp_path / "away")
    assert step_of(checkpoints) == 2


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(tmp_path):
    """The system refuses to write more than 300 bytes a file."""
    checkpoints = Checkpoints(tmp_path, "resume")
    checkpoints.save(snapshot(1))
    large = snapshot(2)
    large.tensors["model"]["w"] = torch.zeros(1000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(ArtifactError, match=r"cannot be written .*ulimit -f"):
            checkpoints.save(large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert step_of(checkpoints) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_nothing_is_pickled(tmp_path):
    Checkpoints(tmp_path, "resume").save(snapshot(1))
    kinds = {file.suffix for file in (tmp_path / "last").iterdir()}
    assert kinds == {".safetensors", ".json"}


@given(
    st.sampled_from(["model", "optimizer", "random", "state"]),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["cut", "flip", "delete"]),
)
@settings(max_examples=60)
def test_a_torn_or_altered_checkpoint_is_named_with_the_way_on(
    tmp_path_factory, part, place, damage
):
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(folder, "tallyformer pretrain --resume")
    checkpoints.save(snapshot(1))
    checkpoints.save(snapshot(2))
    file = checkpoints.last / ("state.json" if part == "state" else f"{part}.safetensors")
    data = bytearray(file.read_bytes())
    at = int(place * len(data))
    if damage == "delete":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[:at])
    else:
        data[at] ^= 4
        if part == "state" and json_equal(bytes(data), file.read_bytes()):
            return  # white space
        file.write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        checkpoints.load()
    message = str(error.value)
    assert "\n" not in message
    assert str(file) in message
    assert f"Delete {checkpoints.last} to resume from {checkpoints.previous}" in message
    for rest in checkpoints.last.iterdir():
        rest.unlink()
    checkpoints.last.rmdir()
    assert step_of(checkpoints) == 1


def json_equal(a: bytes, b: bytes) -> bool:
    try:
        return bool(json.loads(a) == json.loads(b))
    except ValueError:
        return False


def test_a_damaged_only_checkpoint_says_to_start_again(tmp_path):
    checkpoints = Checkpoints(tmp_path, "resume")
    checkpoints.save(snapshot(1))
    (checkpoints.last / "state.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="start this stage again"):
        checkpoints.load()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    small, large = tiny_model(), tiny_model(hidden_size=24)
    optimizer = build_optimizer(small, OptimizerSection())
    found = Snapshot({"model": model_tensors(small), "optimizer": {}, "random": {}}, {})
    with pytest.raises(CheckpointError, match="another model"):
        restore(large, build_optimizer(large, OptimizerSection()), found, tmp_path)
    restore(small, optimizer, found, tmp_path)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_restored_optimizer_continues_as_if_it_had_never_stopped(name):
    section = OptimizerSection(name=name)

    def gradients(model, seed):
        torch.manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn_like(p)

    one = tiny_model()
    first = build_optimizer(one, section)
    gradients(one, 0)
    first.step()
    saved = {
        "model": {n: t.clone() for n, t in model_tensors(one).items()},
        "optimizer": {n: t.clone() for n, t in optimizer_tensors(one, first).items()},
    }
    two = tiny_model()
    second = build_optimizer(two, section)
    restore(two, second, Snapshot({**saved, "random": {}}, {}), Path("x"))
    for model, optimizer in ((one, first), (two, second)):
        gradients(model, 1)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def draws() -> list[float]:
    return [
        torch.rand(1).item(),
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
    ]


def test_every_generator_goes_on_where_it_was():
    with preserved_random_states(CPU):
        seed_everything(11)
        draws()
        states = random_states(CPU)
        expected = [draws(), draws()]
        set_random_states({name: t.clone() for name, t in states.items()}, CPU)
        assert [draws(), draws()] == expected


def test_a_run_leaves_the_process_generators_as_they_were():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with preserved_random_states(CPU):
        seed_everything(2)
        draws()
    assert torch.equal(torch.rand(3), expected)
