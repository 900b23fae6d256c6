"""The whole loop: resuming, interruption, early stopping, evaluation, metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tallyformer.artifacts.manifest import file_entry
from tallyformer.errors import ArtifactError, CheckpointError, Interrupted, TrainingError
from tallyformer.training import loop
from tallyformer.training.checkpoints import Checkpoints, Snapshot
from tallyformer.training.loop import train
from tallyformer.training.metrics import MetricsLog, read_metrics
from tallyformer.training.precision import choose_precision
from tallyformer.training.prefetch import Prefetch
from tallyformer.training.step import Measured, Step, StepResult

from .jobs import RandomBatches, fingerprint, job, run, section, tiny_model

TIMING = {
    "tokens_per_second",
    "mfu",
    "peak_flops",
    "cpu_percent",
    "memory_mb",
    "gpu_percent",
    "gpu_memory_mb",
}


class Stopping(RandomBatches):
    """Sends this process a signal when a batch is first asked for."""

    def __init__(self, at: int, number: int = signal.SIGTERM, **shape: Any):
        super().__init__(**shape)
        self.at, self.number = at, number

    def batch(self, index: int) -> Any:
        if index == self.at:
            self.at = -1
            signal.raise_signal(self.number)
        return super().batch(index)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines without what depends on the clock."""
    lines = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


def final_state(folder: Path) -> dict[str, Any]:
    """Everything that a finished run leaves, but for times."""
    last = folder / "checkpoints" / "last"
    state = json.loads((last / "state.json").read_text(encoding="utf-8"))["state"]
    state["seconds"] = state["window"] = state["log"] = None  # times
    return {
        "state": state,
        "samples": (folder / "samples.jsonl").read_text(encoding="utf-8"),
        "metrics": metrics(folder),
        "best": (folder / "best" / "weights.txt").read_text(encoding="utf-8"),
        **{name: load_file(last / f"{name}.safetensors") for name in ("model", "optimizer")},
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in ("state", "metrics", "best", "samples"):
        assert found[name] == expected[name]
    for name in ("model", "optimizer"):
        assert found[name].keys() == expected[name].keys()
        for key, tensor in expected[name].items():
            assert torch.equal(found[name][key], tensor), key


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return final_state(folder)


@given(stops=st.lists(st.integers(0, 39), min_size=1, max_size=3))
@settings(max_examples=12)
def test_resume_at_any_micro_batch_equals_an_uninterrupted_run(
    tmp_path_factory, uninterrupted, stops
):
    folder = tmp_path_factory.mktemp("stopped")
    for at in stops:
        with contextlib.suppress(Interrupted):  # asked for no batch, if it was past this one
            train(job(folder, train_source=Stopping(at)))
    run(folder)
    assert_same(final_state(folder), uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped:
        train(job(tmp_path, train_source=Stopping(9, number)))
    assert stopped.value.exit_status == 128 + number
    assert str(stopped.value) == (
        "pretrain: stopped at step 4 of 20; everything is saved. "
        "Resume with: tallyformer pretrain --resume"
    )
    assert (tmp_path / "checkpoints" / "last").is_dir()
    assert signal.getsignal(number) is before


def _at_the_last_batch(folder: Path) -> Any:
    return job(folder, train_source=Stopping(39))


def _in_validation(folder: Path) -> Any:
    one = job(folder)
    return dataclasses.replace(one, validation=Stopping(0, batches_per_epoch=2, first=100))


def _in_the_last_validation(folder: Path) -> Any:
    one = job(folder, evaluations=1)
    return dataclasses.replace(one, validation=Stopping(1, batches_per_epoch=2, first=100))


def _in_saving(folder: Path) -> Any:
    """The last save of the best weights."""
    one = job(folder, evaluations=1)

    def save(best: Path) -> None:
        signal.raise_signal(signal.SIGTERM)
        one.save_best(best)

    return dataclasses.replace(one, save_best=save)


@pytest.mark.parametrize(
    "make", [_at_the_last_batch, _in_validation, _in_the_last_validation, _in_saving]
)
def test_a_signal_at_the_end_is_answered_and_nothing_is_lost(tmp_path, make):
    evaluations = make(tmp_path).section.evaluations
    run(tmp_path / "whole", evaluations=evaluations)
    with pytest.raises(Interrupted, match="everything is saved"):
        train(make(tmp_path / "stopped"))
    run(tmp_path / "stopped", evaluations=evaluations)
    assert_same(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_killed_at_any_moment_equals_an_uninterrupted_run(tmp_path, precision):
    """SIGKILL, in processes that write a checkpoint at every step."""
    script = Path(__file__).with_name("jobs.py")
    generator = random.Random(7)
    delays = [generator.uniform(0.1, 0.4) for _ in range(6)]
    for folder, kills in (("whole", []), ("killed", delays)):
        done = subprocess.run(
            [sys.executable, script, tmp_path / folder, precision, *map(str, kills)],
            capture_output=True,
            text=True,
            check=True,
        )
        codes = [int(line) for line in done.stdout.split()]
        assert codes[-1] == 0
    assert -signal.SIGKILL in codes
    assert_same(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))


def test_a_finished_run_is_not_run_again(tmp_path):
    first, weights = run(tmp_path)
    again, same = run(tmp_path)
    assert same == weights
    assert (again.best, again.steps, again.tokens) == (first.best, first.steps, first.tokens)


def test_training_lowers_the_loss_and_its_numbers_agree(tmp_path):
    result, _ = run(tmp_path, steps=60)
    lines = metrics(tmp_path)
    validations = [line for line in lines if line["kind"] == "validation"]
    assert [line["step"] for line in validations] == [15, 30, 45, 60]
    assert validations[-1]["loss"] < validations[0]["loss"] < math.log(61)
    for line in validations:
        assert line["perplexity"] == pytest.approx(math.exp(line["loss"]))
        # Each id stands for two bytes.
        assert line["bits_per_byte"] == pytest.approx(line["loss"] / math.log(2) / 2)
    best = min(validations, key=lambda line: line["loss"])
    assert result.best.mean == best["loss"]
    assert result.best_step == best["step"]
    trained = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in trained] == list(range(3, 61, 3))
    assert all(line["tokens"] == line["step"] * 2 * 4 * 12 for line in trained)
    whole = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert TIMING | {"loss", "perplexity", "learning_rate", "grad_norm"} <= whole.keys()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_the_z_loss_is_minimised_but_never_reported(tmp_path):
    """With a huge coefficient the normaliser shrinks, and the first loss is still the CE."""
    lines = []
    for number, z_loss in enumerate((0.0, 1.0)):
        run(tmp_path / str(number), z_loss=z_loss, log_every=1)
        lines.append(metrics(tmp_path / str(number)))
    assert lines[0][0]["loss"] == lines[1][0]["loss"]
    assert lines[0][0]["grad_norm"] != lines[1][0]["grad_norm"]


def test_patience_ends_a_run_that_gets_no_better(tmp_path):
    def stuck(folder: Path) -> Any:
        one = job(folder, steps=40, evaluations=10, early_stopping_patience=2)
        one.model.requires_grad_(False)
        one.model.model.final_norm.weight.requires_grad_(True)
        one.model.model.final_norm.weight.register_hook(torch.zeros_like)
        return train(one)

    result = stuck(tmp_path)
    assert result.steps == 12
    assert result.best_step == 4
    assert stuck(tmp_path).steps == 12


@given(st.integers(1, 500), st.integers(1, 50))
def test_evaluations_are_evenly_spread_and_the_last_is_at_the_end(steps, evaluations):
    one = job(Path("unused"), steps=steps, evaluations=evaluations)
    found = sorted(one.evaluation_steps)
    assert len(found) == min(steps, evaluations)
    assert found[-1] == steps
    gaps = [b - a for a, b in itertools.pairwise([0, *found])]
    assert max(gaps) - min(gaps) <= 1


@given(st.floats(0.01, 5), st.integers(1, 7))
def test_an_epoch_is_one_pass_whatever_the_accumulation(epochs, accumulation):
    one = job(Path("unused"), steps=None, epochs=epochs, gradient_accumulation=accumulation)
    sequences = one.steps * accumulation * one.train.rows
    wanted = epochs * one.train.batches_per_epoch * one.train.rows
    assert wanted <= sequences + 1e-6
    assert sequences < wanted + accumulation * one.train.rows + 1e-6


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(tmp_path):
    one = job(tmp_path, checkpoint_minutes=1e-9)

    class Poisoned(RandomBatches):
        def batch(self, index: int) -> Any:
            if index == 8:
                with torch.no_grad():
                    one.model.model.token_embed.weight[:] = float("inf")
            return super().batch(index)

    object.__setattr__(one, "train", Poisoned())
    with pytest.raises(TrainingError) as error:
        train(one)
    message = str(error.value)
    assert f"The last good checkpoint is {tmp_path / 'checkpoints' / 'last'}" in message
    assert message.startswith("pretrain: step 5: ")
    assert message.endswith("learning_rate: RESTART {'optimizer.learning_rate': 0.001}")


def test_precision_and_compilation_are_recorded(tmp_path):
    result, _ = run(tmp_path, precision="bf16")
    assert (result.precision, result.compiled) == ("bf16", False)
    assert math.isfinite(result.best.mean)
    values = result.metrics()
    assert values["validation_perplexity"] == pytest.approx(math.exp(values["validation_loss"]))
    assert values["peak_memory_mb"] > 10
    assert values["peak_gpu_memory_mb"] is None


def test_a_resumed_run_keeps_its_precision_whatever_auto_means_there(tmp_path):
    auto = choose_precision("auto", torch.device("cpu")).name
    other = "fp32" if auto == "bf16" else "bf16"
    with pytest.raises(Interrupted):
        train(job(tmp_path, train_source=Stopping(9), precision=other))
    assert train(job(tmp_path, precision="auto")).precision == other


def test_a_checkpoint_without_a_value_is_said_to_be_another_versions(tmp_path):
    run(tmp_path, steps=2)
    checkpoints = Checkpoints(tmp_path / "checkpoints", "resume")
    found = checkpoints.load()
    assert found is not None
    state = {k: v for k, v in found.state.items() if k != "precision"}
    checkpoints.save(Snapshot(found.tensors, state))
    with pytest.raises(CheckpointError, match=r"another version .*'precision'.*Delete it"):
        train(job(tmp_path, steps=2))


def test_a_window_without_a_label_has_no_loss(tmp_path):
    run(tmp_path, train_source=RandomBatches(ignored=1.0), steps=3)
    (line,) = (line for line in metrics(tmp_path) if line["kind"] == "train")
    assert line["loss"] is None and line["perplexity"] is None


def test_a_run_does_not_depend_on_the_process_generators(tmp_path):
    torch.manual_seed(1)
    _, first = run(tmp_path / "a")
    torch.manual_seed(2)
    _, second = run(tmp_path / "b")
    assert first == second


def test_validation_leaves_the_models_mode_as_it_was(tmp_path):
    one = job(tmp_path)
    for training in (True, False):
        loop.evaluate_only(
            one.model.train(training),
            one.validation,
            device=one.device,
            section=section(),
            token_bytes=one.token_bytes,
            label="validation",
        )
        assert {m.training for m in one.model.modules()} == {training}


def test_dropout_is_off_in_validation(tmp_path):
    one = job(tmp_path)
    one.model.eval()
    expected = fingerprint(one.model)
    losses = set()
    for _ in range(2):
        from tallyformer.training.loop import evaluate_only

        found = evaluate_only(
            one.model.train(),
            one.validation,
            device=one.device,
            section=section(),
            token_bytes=one.token_bytes,
            label="validation",
        )
        losses.add(found.mean)
    assert len(losses) == 1
    assert one.model.training
    assert fingerprint(one.model) == expected


def test_lines_after_the_checkpoint_are_dropped_and_torn_ones_too(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2):
            log.write("train", step, {"loss": 1.0 / step})
        known = log.written()
        log.write("train", 3, {"loss": 1 / 3})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"kind": "tr', encoding="utf-8")
    with MetricsLog(tmp_path, 2, known) as log:
        log.write("train", 3, {"loss": float("nan")})
        assert file_entry(path) == log.written()
    lines = read_metrics(path)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] is None


@pytest.mark.parametrize("damage", ["cut", "flip", "delete", "folder gone"])
def test_best_weights_that_the_checkpoint_does_not_know_are_refused(tmp_path, damage):
    """Between the last validation and the signing, and whenever the run resumes."""
    run(tmp_path, steps=4, evaluations=1)
    file = tmp_path / "best" / "weights.txt"
    data = file.read_bytes()
    if damage == "folder gone":
        file.unlink()
        file.parent.rmdir()
    elif damage == "delete":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if damage == "cut" else b"0" + data[1:])
    with pytest.raises(ArtifactError, match=rf"weights\.txt: .*Delete {tmp_path}"):
        run(tmp_path, steps=4, evaluations=1)


def test_damaged_metrics_are_refused_and_can_be_done_without(tmp_path):
    _, expected = run(tmp_path, steps=4, evaluations=2)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl: damaged .*Delete it to continue"):
        run(tmp_path, steps=4, evaluations=2)
    path.unlink()
    result, weights = run(tmp_path, steps=4, evaluations=2)
    assert weights == expected
    assert result.records[path] == file_entry(path)


def test_a_run_tells_what_it_wrote(tmp_path):
    result, _ = run(tmp_path, steps=4, evaluations=2)
    for written in (result.files, result.records):
        for file, entry in written.items():
            assert entry == file_entry(file)
    assert [*result.files, *result.records] == [
        tmp_path / "best" / "weights.txt",
        tmp_path / "metrics.jsonl",
        tmp_path / "samples.jsonl",
    ]


def test_a_run_goes_on_from_the_checkpoint_before_the_last_to_the_same_end(tmp_path):
    """Its best weights were replaced since; the next validation writes them again."""
    settings = {"steps": 12, "evaluations": 6}
    run(tmp_path / "whole", **settings)
    broken = tmp_path / "broken"
    with pytest.raises(Interrupted):
        run(broken, train_source=Stopping(2 * 9), **settings)
    checkpoints = Checkpoints(broken / "checkpoints", "resume")
    shutil.rmtree(checkpoints.last)
    run(broken, **settings)
    assert_same(final_state(broken), final_state(tmp_path / "whole"))


class StoppingAtCall(RandomBatches):
    """Raises SIGTERM when a batch is asked for that many times."""

    def __init__(self, at: int, **shape: Any):
        super().__init__(**shape)
        self._left = at

    def batch(self, index: int) -> Any:
        self._left -= 1
        if not self._left:
            signal.raise_signal(signal.SIGTERM)
        return super().batch(index)


def test_a_checkpoint_whose_final_validation_was_cut_can_still_be_resumed_after_it(tmp_path):
    """Its best weights were replaced by that validation, which is then done again."""
    run(tmp_path / "whole", evaluations=2)
    broken = tmp_path / "broken"
    in_the_second = StoppingAtCall(3, batches_per_epoch=2, first=100)
    with pytest.raises(Interrupted, match="at step 20 of 20"):
        train(dataclasses.replace(job(broken, evaluations=2), validation=in_the_second))
    run(broken, evaluations=2)
    checkpoints = Checkpoints(broken / "checkpoints", "resume")
    shutil.rmtree(checkpoints.last)
    assert checkpoints.load().state["evaluation_due"]
    run(broken, evaluations=2)
    assert_same(final_state(broken), final_state(tmp_path / "whole"))


def poisoned() -> Any:
    model = tiny_model()
    with torch.no_grad():
        model.model.blocks[0].mlp.fc1.weight[0, 0] = float("nan")
    return model


def test_a_loss_that_is_not_finite_names_step_documents_and_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as error:
        train(job(tmp_path, model=poisoned()))
    message = str(error.value)
    assert message.startswith("pretrain: step 1: the loss is not finite")
    assert "document 0, document 1" in message
    assert "There is no checkpoint yet" in message and "RESTART" in message


def test_documents_are_named_when_no_thread_reads_the_source_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources keep the orders of their epochs, and drop those that are over."""
    monkeypatch.setattr(loop, "Prefetch", lambda make, ahead: Prefetch(make, ahead=2))
    beside: list[str] = []

    class Source(RandomBatches):
        def documents(self, index: int) -> list[str]:
            beside.extend(t.name for t in threading.enumerate() if "prefetch" in t.name)
            return super().documents(index)

    with pytest.raises(TrainingError, match="document 0, document 1"):
        train(job(tmp_path, model=poisoned(), train_source=Source()))
    assert not beside


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are read a step later, after the update."""
    monkeypatch.setattr(loop, "_steps_behind", lambda device: 1)
    monkeypatch.setattr(Step, "_reads_first", lambda self, result: False)


@pytest.mark.parametrize("stops", [False, True])
def test_weights_whose_numbers_are_read_late_are_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    """A checkpoint is due, or a signal comes, before the numbers are looked at."""
    as_on_a_gpu(monkeypatch)
    source = Stopping(2) if stops else RandomBatches()
    one = job(
        tmp_path,
        model=poisoned(),
        train_source=source,
        log_every=20,
        evaluations=1,
        checkpoint_minutes=100.0 if stops else 1e-9,
    )
    with pytest.raises(TrainingError, match="step 1: the loss is not finite"):
        train(one)
    assert not (tmp_path / "checkpoints" / "last").exists()


def test_the_wait_for_a_gpus_numbers_is_time_of_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is waited for is the computation: without it a line would show many times the rate."""
    as_on_a_gpu(monkeypatch)
    now, read = [0.0], StepResult.read

    def waited_for(result: StepResult) -> Measured:
        now[0] += 2.0
        return read(result)

    monkeypatch.setattr(StepResult, "read", waited_for)
    one = job(tmp_path, log_every=4, evaluations=2)
    train(dataclasses.replace(one, clock=lambda: now[0]))
    lines = [x for x in read_metrics(tmp_path / "metrics.jsonl") if x["kind"] == "train"]
    assert [line["tokens_per_second"] for line in lines] == [one.tokens_per_step / 2.0] * 5


def test_reading_late_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = run(tmp_path / "at-once")
    as_on_a_gpu(monkeypatch)
    _, found = run(tmp_path / "late")
    assert found == expected
    assert metrics(tmp_path / "late") == metrics(tmp_path / "at-once")
