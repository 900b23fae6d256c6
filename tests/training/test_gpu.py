"""What only a GPU can show. Skipped where there is none; nothing else of the tests needs one."""

from __future__ import annotations

import dataclasses
import math
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from tallyformer.config.training import OptimizerSection, PretrainSection
from tallyformer.errors import Interrupted, TrainingError
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.runs.samples import continuations
from tallyformer.tokenizer import Tokenizer
from tallyformer.training.distillation import DistillationLoss, DistillationWeights
from tallyformer.training.hardware import peak_flops
from tallyformer.training.job import TrainingJob, TrainingResult
from tallyformer.training.loop import train
from tallyformer.training.losses import LanguageModelLoss, NextTokenLoss
from tallyformer.training.metrics import read_metrics
from tallyformer.training.micro_batch import Placement
from tallyformer.training.optimizers import build_optimizer
from tallyformer.training.precision import Precision, choose_precision
from tallyformer.training.step import Step
from tallyformer.training.teacher import Teacher
from tallyformer.training.teacher_cache import TeacherCache

from ..inference.conftest import tokenizer  # noqa: F401  (fixture)
from .jobs import CONTEXT, VOCABULARY, RandomBatches

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
SLOW_FP16 = "a CPU takes half a minute to measure its fp16 peak"
FLOAT32 = {"rtol": 2e-4, "atol": 2e-5}
"""Sums of float32 products in another order."""


MakeLoss = Callable[[Any, torch.device], LanguageModelLoss]


def model_on(device: torch.device, **overrides: Any) -> TallyFormerForCausalLM:
    values: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": CONTEXT,
        "dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    torch.manual_seed(3)
    return TallyFormerForCausalLM(TallyFormerConfig(**{**values, **overrides})).to(device)


def sums_and_gradients(
    device: torch.device, make: MakeLoss, precision: str
) -> tuple[list[float], list[torch.Tensor]]:
    model = model_on(device).train()
    inputs = Placement(device)(RandomBatches().batch(0))
    objective, sums = make(model, device)(inputs, 0.01, Precision(precision, device))  # type: ignore[arg-type]
    objective.backward()
    gradients = [p.grad.float().cpu() for p in model.parameters() if p.grad is not None]
    return sums.tolist(), gradients


def next_token(model: Any, device: torch.device) -> LanguageModelLoss:
    return NextTokenLoss(model, 1e-3)


def distilled(model: Any, device: torch.device) -> LanguageModelLoss:
    torch.manual_seed(4)
    teacher = model_on(device, hidden_size=32, num_attention_heads=2).eval()
    source = Teacher(teacher, VOCABULARY - 2, "tiny")
    return DistillationLoss(model, source, DistillationWeights(2.5, 0.7, 1e-3))


@pytest.mark.parametrize("make", [next_token, distilled])
def test_loss_and_gradients_equal_the_cpu(make: MakeLoss, gpu: torch.device) -> None:
    expected, wanted = sums_and_gradients(CPU, make, "fp32")
    found, got = sums_and_gradients(gpu, make, "fp32")
    assert found == pytest.approx(expected, rel=2e-4)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, **FLOAT32)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_on_the_gpu_are_near_float32(precision: str, gpu: torch.device) -> None:
    expected, wanted = sums_and_gradients(CPU, next_token, "fp32")
    found, got = sums_and_gradients(gpu, next_token, precision)
    assert found == pytest.approx(expected, rel=2e-2)
    for one, other in zip(got, wanted, strict=True):
        assert (one - other).norm() <= 0.05 * other.norm()


def from_a_stored_pass(model: Any, device: torch.device) -> LanguageModelLoss:
    torch.manual_seed(4)
    teacher = Teacher(model_on(device, hidden_size=32).eval(), VOCABULARY - 2, "tiny")
    folder = Path(tempfile.mkdtemp())
    cache = TeacherCache(folder, {}, teacher, context=CONTEXT, top_k=8, temperatures=[2.5])
    return DistillationLoss(model, cache, DistillationWeights(2.5, 0.7, 1e-3))


@pytest.mark.parametrize("make", [next_token, distilled, from_a_stored_pass])
@pytest.mark.parametrize("isolated", [True, False])
def test_a_step_never_waits_for_the_gpu(isolated: bool, make: MakeLoss, gpu: torch.device) -> None:
    place = Placement(gpu, attend_across_documents=not isolated)
    # Some positions have no place in the head, and the third step reads the first one's batches.
    source = RandomBatches(rows=16, ignored=0.6, batches_per_epoch=4)
    model = model_on(gpu).train()
    step = Step(
        loss=make(model, gpu),
        batches=lambda number: place.prepare(source.batch(number)),
        optimizer=build_optimizer(model, OptimizerSection()),
        micro_batches=2,
        clip_norm=1.0,
        precision=Precision("bf16", gpu),
        placement=place,
    )
    for number in range(2):  # the first ones make the optimizer's state, and try the kernels
        step.run(number, 1e-3, lambda: False)
    if gpu.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        result = step.run(2, 1e-3, lambda: False)
    finally:
        if gpu.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert result is not None and math.isfinite(result.read().gradient_norm)


def gpu_job(
    folder: Path, device: torch.device, *, source: Any = None, model: Any = None, **overrides: Any
) -> TrainingJob:
    values: dict[str, Any] = {
        "steps": 20,
        "micro_batch": 4,
        "gradient_accumulation": 2,
        "evaluations": 4,
        "log_every": 3,
        "precision": "auto",
        "compile": "off",
        "optimizer": OptimizerSection(learning_rate=1e-2),
    }
    section = PretrainSection(**{**values, **overrides})
    return TrainingJob(
        name="pretrain",
        model=model or model_on(device, dropout=0.1),
        make_loss=lambda model, compiled: NextTokenLoss(model, section.z_loss, compiled=compiled),
        train=source or RandomBatches(),
        validation=RandomBatches(batches_per_epoch=2, first=100),
        section=section,
        folder=folder,
        best=folder / "best",
        save_best=lambda best: (best / "weights.txt").write_text("best") and None,
        seed=5,
        device=device,
        token_bytes=np.full(VOCABULARY, 2, dtype=np.int32),
        flops_per_token=1e6,
        head_flops=2e5,
        resume_command="tallyformer pretrain --resume",
        restart_command=lambda changes: f"RESTART {changes}",
    )


def run(job: TrainingJob) -> tuple[TrainingResult, list[torch.Tensor]]:
    result = train(job)
    return result, [p.detach().cpu() for p in job.model.parameters()]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("compile_", ["off", "on"])
def test_a_stopped_and_resumed_run_ends_where_an_uninterrupted_one_does(
    precision: str, compile_: str, tmp_path: Path, gpu: torch.device
) -> None:
    if compile_ == "on" and gpu.type == "cpu":
        pytest.skip("compiling for the CPU has tests of its own")
    if precision == "fp16" and gpu.type == "cpu":
        pytest.skip(SLOW_FP16)
    how = {"precision": precision, "compile": compile_}
    _, expected = run(gpu_job(tmp_path / "whole", gpu, **how))

    class Stopping(RandomBatches):
        at = 15

        def batch(self, index: int) -> Any:
            if index == self.at:
                self.at = -1
                signal.raise_signal(signal.SIGTERM)
            return super().batch(index)

    with pytest.raises(Interrupted):
        train(gpu_job(tmp_path / "stopped", gpu, source=Stopping(), **how))
    _, found = run(gpu_job(tmp_path / "stopped", gpu, **how))
    # A GPU adds up in an order of its own; its random states continue where they were.
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 0.02 * other.norm()


def test_fp16_goes_on_after_steps_that_overflow(tmp_path: Path, gpu: torch.device) -> None:
    if gpu.type == "cpu":
        pytest.skip(SLOW_FP16)
    model = model_on(gpu)
    with torch.no_grad():
        model.model.final_norm.weight.mul_(30)  # the scaled gradients leave fp16's range
    how = {"precision": "fp16", "log_every": 1, "gradient_accumulation": 1, "evaluations": 1}
    run(gpu_job(tmp_path, gpu, model=model, steps=12, **how))
    lines = [x for x in read_metrics(tmp_path / "metrics.jsonl") if x["kind"] == "train"]
    scales = [line["loss_scale"] for line in lines]
    assert lines[0]["loss"] is None and scales[0] == 2.0**15
    assert math.isfinite(lines[-1]["loss"]) and scales[-1] == scales[-2]
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path, gpu: torch.device) -> None:
    """A GPU's numbers are read a step later, when a checkpoint is due."""
    model = model_on(gpu)
    with torch.no_grad():
        model.model.blocks[0].mlp.fc1.weight[0, 0] = float("nan")
    how = {"log_every": 20, "evaluations": 1, "checkpoint_minutes": 1e-9, "precision": "bf16"}
    with pytest.raises(TrainingError, match="step 1: the loss is not finite"):
        train(gpu_job(tmp_path, gpu, model=model, **how))
    assert not (tmp_path / "checkpoints" / "last").exists()


@pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_same_run_twice_ends_with_the_same_bits(
    optimizer: str, tmp_path: Path, gpu: torch.device
) -> None:
    how = {"optimizer": OptimizerSection(name=optimizer, learning_rate=1e-2)}
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = [run(gpu_job(tmp_path / name, gpu, **how))[1] for name in ("one", "other")]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, *found))


@pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("compile_", ["off", "on"])
def test_what_the_model_writes_at_validations_leaves_the_training_as_it_was(
    compile_: str,
    tmp_path: Path,
    gpu: torch.device,
    tokenizer: Tokenizer,  # noqa: F811
) -> None:
    if compile_ == "on" and gpu.type == "cpu":
        pytest.skip("compiling for the CPU has tests of its own")
    torch.use_deterministic_algorithms(True, warn_only=True)
    found = []
    try:
        for name, prompts in (("with", ("a bond",)), ("without", ())):
            model = model_on(gpu, vocab_size=tokenizer.vocab_size, dropout=0.1)
            job = gpu_job(
                tmp_path / name, gpu, model=model, compile=compile_, sample_prompts=prompts
            )
            if prompts:
                take = continuations(model, tokenizer, job.section, cast(Any, None))
                job = dataclasses.replace(job, take_samples=take)
            found.append(run(job)[1])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, *found))
    lines = (tmp_path / "with" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4 and all("a bond" in line for line in lines)


def test_training_lowers_the_loss_and_says_what_the_gpu_did(
    tmp_path: Path, gpu: torch.device
) -> None:
    result, _ = run(gpu_job(tmp_path, gpu, steps=40))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
    assert result.precision == choose_precision("auto", gpu).name
    if gpu.type == "cuda":
        assert all(line["gpu_memory_mb"] > 0 for line in lines if line["kind"] == "train")
        assert result.metrics()["peak_gpu_memory_mb"] > 0


def test_a_batch_too_large_for_the_gpu_is_an_error_that_names_the_fix(
    tmp_path: Path, gpu: torch.device
) -> None:
    if gpu.type == "cpu":
        pytest.skip("would fill this machine's memory")

    class Huge(RandomBatches):
        def batch(self, index: int) -> Any:
            batch = super().batch(0)
            rows = 2**24
            return dataclasses.replace(
                batch,
                **{
                    f.name: getattr(batch, f.name)[:1].expand(rows, -1)
                    for f in dataclasses.fields(batch)
                },
            )

    torch.cuda.set_per_process_memory_fraction(0.2)  # other processes may use the rest
    try:
        with pytest.raises(TrainingError, match="micro_batch"):
            train(gpu_job(tmp_path, gpu, source=Huge()))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_the_peak_of_this_gpu_is_more_than_a_product_reaches(gpu: torch.device) -> None:
    if gpu.type == "cpu":
        pytest.skip("the CPU's peak is measured, not known")
    size = 4096
    a, b = torch.randn(2, size, size, device=gpu, dtype=torch.bfloat16)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        a @ b
    start.record()
    for _ in range(20):
        a @ b
    end.record()
    torch.cuda.synchronize()
    reached = 20 * 2 * size**3 / (start.elapsed_time(end) / 1000)
    assert 0.3 * peak_flops(gpu, torch.bfloat16) < reached <= peak_flops(gpu, torch.bfloat16)
