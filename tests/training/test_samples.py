"""What the model writes at each validation: once each, and without a trace in the training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tallyformer.errors import ArtifactError
from tallyformer.training.checkpoints import Checkpoints, Snapshot
from tallyformer.training.compiling import compiler_works
from tallyformer.training.loop import train
from tallyformer.training.samples import undisturbed

from .jobs import fingerprint, job, next_ids, run
from .test_loop import metrics


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "samples.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def without_samples(folder: Path, **how: Any) -> str:
    one = dataclasses.replace(job(folder, **how), take_samples=None)
    train(one)
    return fingerprint(one.model)


def test_there_is_a_line_for_each_validation_and_the_last_is_of_the_last_weights(tmp_path):
    one = job(tmp_path)
    train(one)
    assert [line["step"] for line in lines(tmp_path)] == [5, 10, 15, 20]
    assert lines(tmp_path)[-1]["samples"] == [next_ids(one.model.eval())]
    assert lines(tmp_path)[0]["samples"] != lines(tmp_path)[-1]["samples"]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("compile_", ["off", "on"])
def test_a_trainings_bits_are_the_same_with_samples_and_without(tmp_path, compile_):
    if compile_ == "on" and not compiler_works(job(tmp_path).device):
        pytest.skip("needs a compiler")
    _, weights = run(tmp_path / "with", compile=compile_)
    assert without_samples(tmp_path / "without", compile=compile_) == weights
    assert metrics(tmp_path / "without") == metrics(tmp_path / "with")
    assert not (tmp_path / "without" / "samples.jsonl").exists()


@pytest.mark.parametrize("training", [True, False])
def test_a_model_has_its_mode_and_its_gradients_as_they_were_even_after_an_error(
    tmp_path, training
):
    one = job(tmp_path)
    loss = one.make_loss(one.model, False).model(one.train.batch(0).input_ids).logits.sum()
    loss.backward()
    before = [parameter.grad.clone() for parameter in one.model.parameters()]
    one.model.train(training)
    with pytest.raises(RuntimeError, match="broken"), undisturbed(one.model, one.device):
        next_ids(one.model)
        raise RuntimeError("broken")
    assert {module.training for module in one.model.modules()} == {training}
    after = [parameter.grad for parameter in one.model.parameters()]
    assert all(old.equal(new) for old, new in zip(before, after, strict=True))


def test_samples_can_be_turned_off_and_on_again_in_a_run_that_goes_on(tmp_path):
    run(tmp_path, steps=4, evaluations=2)
    first = lines(tmp_path)
    one = dataclasses.replace(job(tmp_path, steps=8, evaluations=2), take_samples=None)
    assert tmp_path / "samples.jsonl" in train(one).records
    assert lines(tmp_path) == first
    run(tmp_path, steps=12, evaluations=2)
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 12]


def test_a_checkpoint_of_a_version_without_samples_is_gone_on_with(tmp_path):
    old = tmp_path / "old"
    without_samples(old, steps=4, evaluations=1)
    checkpoints = Checkpoints(old / "checkpoints", "resume")
    found = checkpoints.load()
    assert found is not None
    state = {name: value for name, value in found.state.items() if name != "samples"}
    checkpoints.save(Snapshot(found.tensors, state))
    run(old, steps=8, evaluations=2)
    assert [line["step"] for line in lines(old)] == [8]


def test_damaged_samples_are_refused_and_can_be_done_without(tmp_path):
    _, expected = run(tmp_path, steps=4, evaluations=2)
    path = tmp_path / "samples.jsonl"
    path.write_bytes(path.read_bytes().replace(b"7", b"8", 1))
    with pytest.raises(ArtifactError, match=r"samples\.jsonl: damaged .*Delete it to continue"):
        run(tmp_path, steps=4, evaluations=2)
    path.unlink()
    assert run(tmp_path, steps=4, evaluations=2)[1] == expected


def test_a_model_that_is_no_numbers_writes_nothing(tmp_path):
    one = job(tmp_path, steps=4, evaluations=1)

    class NotANumber:
        batches_per_epoch, tokens_per_batch = 1, one.validation.tokens_per_batch

        def batch(self, index: int) -> Any:
            one.model.lm_head.weight.data.fill_(float("nan"))
            return one.validation.batch(index)

    train(dataclasses.replace(one, validation=NotANumber()))
    assert lines(tmp_path) == []
