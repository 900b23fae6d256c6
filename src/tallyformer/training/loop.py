"""The training loop: one for pretraining, the teacher, distillation and fine-tuning.

A step is: batches -> loss and gradients, weighted by tokens -> clipping -> update. Around it are
metrics, validation, checkpoints, early stopping and a clean end on SIGINT, SIGTERM and SIGHUP.
Nothing waits for a GPU between two lines of metrics: a step's numbers are read while the next one
is computed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tallyformer.artifacts.run_folder import METRICS, SAMPLES
from tallyformer.config.training import TrainSection
from tallyformer.data.batch import Batch, BatchSource
from tallyformer.errors import CheckpointError, Interrupted, TrainingError
from tallyformer.interrupt import Interruption, watch_signals
from tallyformer.progress import note, progress_bar
from tallyformer.training.best_weights import BestWeights
from tallyformer.training.checkpoints import (
    Checkpoints,
    Snapshot,
    model_tensors,
    optimizer_tensors,
    restore,
)
from tallyformer.training.compiling import (
    compile_blocks,
    forget_compiled,
    require_compiler,
    wants_compile,
)
from tallyformer.training.failures import memory_errors, not_finite
from tallyformer.training.hardware import (
    Peak,
    PeakMemory,
    Usage,
    peak_gpu_mb,
    start_gpu_peak,
)
from tallyformer.training.job import TrainingJob, TrainingResult
from tallyformer.training.losses import NextTokenLoss
from tallyformer.training.metrics import MetricsLog
from tallyformer.training.micro_batch import Placement
from tallyformer.training.optimizers import build_optimizer
from tallyformer.training.precision import choose_precision
from tallyformer.training.prefetch import Prefetch
from tallyformer.training.random_state import (
    preserved_random_states,
    random_states,
    seed_everything,
    set_random_states,
)
from tallyformer.training.run_state import RunState
from tallyformer.training.samples import SamplesLog
from tallyformer.training.schedules import learning_rate_factor
from tallyformer.training.step import Measured, NotFiniteError, Step, StepResult
from tallyformer.training.validation import TextLoss, validate

CHECKPOINTS = "checkpoints"
_NAMED_DOCUMENTS = 5


def train(job: TrainingJob) -> TrainingResult:
    """Run a job to its end, from its newest checkpoint if it has one.

    On one CPU with the same number of threads, a run that was stopped or killed any number of
    times ends with the same bits as one that was not.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP came; everything is saved.
        TrainingError: a loss or gradient is not finite, memory is full, or this machine lacks what
            the run needs.
        CheckpointError: the checkpoint is damaged, or belongs to another model or version.
    """
    with preserved_random_states(job.device), watch_signals() as interruption:
        return _Run(job, interruption).to_the_end()


class _Run:
    """The state of one call of `train`."""

    def __init__(self, job: TrainingJob, interruption: Interruption):
        self.job = job
        self.interruption = interruption
        self.memory = PeakMemory()
        start_gpu_peak(job.device)
        self.started = self.saved_at = job.clock()
        self.unread: list[tuple[int, StepResult]] = []
        self.newest = Measured({}, 0, 0.0)
        self.checkpoints = Checkpoints(job.folder / CHECKPOINTS, job.resume_command)
        self.optimizer = build_optimizer(job.model, job.section.optimizer)
        self.best = BestWeights(job.best, f"Delete {job.folder} to start this stage again")
        self.state = self._start_or_resume()
        self.precision = choose_precision(self.state.precision, job.device)
        self.seconds_before = self.state.seconds
        if self.state.compiled:
            forget_compiled()
            compile_blocks(job.model)
        self._prepare_step()

    def _start_or_resume(self) -> RunState:
        job = self.job
        snapshot = self.checkpoints.load()
        if snapshot is None:
            self.best.settle({}, is_newest=True)
            seed_everything(job.seed)
            flops = job.flops_per_token * job.tokens_per_step * job.steps
            return RunState(
                compiled=wants_compile(job.section.compile, job.device, flops),
                precision=choose_precision(job.section.precision, job.device).name,
            )
        where = self.checkpoints.newest()
        assert where is not None
        restore(job.model, self.optimizer, snapshot, where)
        set_random_states(snapshot.tensors["random"], job.device)
        try:
            state = RunState.from_json(snapshot.state)
        except KeyError as error:
            raise CheckpointError(
                f"{where}: was written by another version of TallyFormer (it has no {error}). "
                "Delete it to start this stage again, or continue with that version"
            ) from None
        self._settle_best(state, where)
        if state.compiled:
            require_compiler(
                job.device, f"{job.name}: the run began compiled and", "or resume it where it began"
            )
        return state

    def _settle_best(self, state: RunState, checkpoint: Path) -> None:
        """Compare the best weights with the checkpoint.

        Resumed from an older one, the run forgets best weights that were replaced since: its next
        validation writes them again.
        """
        ends = state.step >= self.job.steps or state.stopped_early
        ends = ends and not state.evaluation_due
        is_newest = ends or checkpoint != self.checkpoints.previous
        if not self.best.settle(state.best_files, is_newest=is_newest):
            state.best, state.best_files = {}, {}

    def _prepare_step(self) -> None:
        job, section = self.job, self.job.section
        self.placement = placement = Placement(
            job.device, attend_across_documents=section.attend_across_documents
        )
        self.batches = Prefetch(
            # Without `self`: in a cycle, the model's memory would outlast the run.
            lambda number: placement.prepare(job.train.batch(number)),
            ahead=section.gradient_accumulation if job.device.type == "cuda" else 0,
        )
        self.step = Step(
            loss=job.make_loss(job.model, self.state.compiled),
            batches=self.batches,
            optimizer=self.optimizer,
            micro_batches=section.gradient_accumulation,
            clip_norm=section.optimizer.clip_norm,
            precision=self.precision,
            placement=self.placement,
            skipped=self.state.skipped,
        )
        self.step.load_scaler(self.state.scaler)

    def to_the_end(self) -> TrainingResult:
        job = self.job
        job.model.train()
        self.peak = Peak(job.device, self.precision.dtype, job.clock)
        self.usage = Usage(job.device)
        total, done = job.steps * job.tokens_per_step, self.state.tokens
        with (
            MetricsLog(job.folder, self.state.step, self.state.log) as self.log,
            SamplesLog(job.folder, job.take_samples, self.state.samples) as self.samples,
            progress_bar(job.name, total, "tok", initial=done) as self.bar,
            memory_errors(self._where, job.section, job.resume_command, job.restart_command),
            self.batches,
        ):
            if self.state.evaluation_due:
                self._evaluate()
            while self.state.step < job.steps and not self.state.stopped_early:
                self._one_step()
            self._settle_records()  # of new files, if they were deleted
        return self._result()

    def _where(self) -> str:
        return f"{self.job.name}: after {self.state.step} of {self.job.steps} steps"

    def _one_step(self) -> None:
        job, state = self.job, self.state
        began = job.clock()
        before = random_states(job.device)
        factor = learning_rate_factor(job.section.schedule, state.step, job.steps)
        rate = job.section.optimizer.learning_rate * factor
        try:
            result = self.step.run(state.step, rate, self._is_interrupted)
        except NotFiniteError as error:
            raise self._not_finite(state.step + 1, error) from None
        if result is None:
            raise self._stopped(before)
        self._count(result, job.clock() - began)
        if job.logs_after(state.step):
            self._log_window(rate, self._read().gradient_norm)
        if state.step in job.evaluation_steps:
            state.evaluation_due = True
            self._evaluate()
        elif job.clock() - self.saved_at > 60 * job.section.checkpoint_minutes:
            self._save(random_states(job.device))
        if self._is_interrupted():
            raise self._stopped(random_states(job.device))

    def _is_interrupted(self) -> bool:
        return self.interruption.signal_number is not None

    def _count(self, result: StepResult, seconds: float) -> None:
        state, job = self.state, self.job
        state.step += 1
        state.tokens += job.tokens_per_step
        state.scaler, state.skipped = self.step.scaler_state(), self.step.skipped
        self._add({"tokens": job.tokens_per_step, "seconds": seconds})
        self.bar.update(job.tokens_per_step)
        self.unread.append((state.step, result))
        self._read(but=_steps_behind(job.device))

    def _read(self, but: int = 0) -> Measured:
        """Take over what steps have measured; the last one's numbers are returned.

        Args:
            but: so many of the newest stay, because the GPU is at work on them.
        """
        while len(self.unread) > but:
            number, result = self.unread.pop(0)
            began = self.job.clock()
            try:
                self.newest = result.read()
            except NotFiniteError as error:
                raise self._not_finite(number, error) from None
            self._add({"seconds": self.job.clock() - began})  # a GPU's work is waited for here
            if not result.skipped:
                self._add({**self.newest.sums, "labels": result.labels})
            mean = self.newest.sums["loss"] / max(1, result.labels)
            self.bar.set_postfix_str(f"loss {mean:.3f}", refresh=False)
        return self.newest

    def _add(self, values: Mapping[str, float]) -> None:
        """To the sums of the next line of metrics."""
        for name, value in values.items():
            self.state.window[name] = self.state.window.get(name, 0.0) + value

    def _not_finite(self, step: int, error: NotFiniteError) -> TrainingError:
        self.batches.stop()  # its thread reads the source that is asked for names here
        every = (name for n in error.batches for name in self.job.train.documents(n))
        names = list(dict.fromkeys(every))
        rest = len(names) - _NAMED_DOCUMENTS
        documents = ", ".join(names[:_NAMED_DOCUMENTS]) + (f" and {rest} more" if rest > 0 else "")
        return not_finite(
            f"{self.job.name}: step {step}",
            error.what,
            documents=documents,
            last=self.checkpoints.newest(),
            rate=self.job.section.optimizer.learning_rate,
            restart=self.job.restart_command,
        )

    def _log_window(self, rate: float, gradient_norm: float) -> None:
        window, job = self.state.window, self.job
        tokens, seconds = window.pop("tokens"), max(window.pop("seconds"), 1e-9)
        labels = window.pop("labels", 0.0)
        flops = tokens * (job.flops_per_token - job.head_flops) + labels * job.head_flops
        # None where no label was met, or fp16's scaling left out every step.
        means = {n: window[n] / labels if labels else None for n in self.step.loss.names}
        self.state.window = {}
        self.log.write(
            "train",
            self.state.step,
            {
                "epoch": self._epoch(),
                "tokens": self.state.tokens,
                **means,
                "perplexity": _exp(means["loss"]),
                "learning_rate": rate,
                "grad_norm": gradient_norm,
                "loss_scale": self.state.scaler.get("scale"),
                "tokens_per_second": round(tokens / seconds, 1),
                "mfu": round(self.peak.share(flops / seconds), 4),
                "peak_flops": round(self.peak.flops),
                **self.usage.look(),
            },
        )

    def _epoch(self) -> float:
        """Passes over the data so far."""
        one = self.job.train.tokens_per_batch * self.job.train.batches_per_epoch
        return round(self.state.tokens / one, 4)

    def _evaluate(self) -> None:
        self._read()
        job, state = self.job, self.state
        found = self._validate()
        self.peak.look()
        self.log.write(
            "validation",
            state.step,
            {"epoch": self._epoch(), "tokens": state.tokens, **found.values()},
        )
        if math.isfinite(found.mean):  # weights that are no numbers write nothing
            note(self.bar, "writing samples")
            self.samples.write(state.step, job.model, job.device)
        self.bar.set_postfix_str(f"validation loss {found.mean:.3f}", refresh=False)
        if not state.best or found.mean < TextLoss(**state.best).mean:
            state.best, state.best_step = dataclasses.asdict(found), state.step
            state.stale_evaluations = 0
            state.best_files = self.best.write(job.save_best)
        else:
            state.stale_evaluations += 1
        patience = job.section.early_stopping_patience
        state.stopped_early = patience is not None and state.stale_evaluations >= patience
        state.evaluation_due = False
        self._save(random_states(job.device))
        self.best.publish()

    def _validate(self) -> TextLoss:
        return validate(
            self.step.loss,
            self._validation_batches(),
            precision=self.precision,
            placement=self.placement,
            token_bytes=self.job.token_bytes,
        )

    def _validation_batches(self) -> Iterator[Batch]:
        """The batches, with progress; a run that is asked to stop here validates when resumed."""
        source = self.job.validation
        for index in range(source.batches_per_epoch):
            if self._is_interrupted():
                raise self._stopped(random_states(self.job.device))
            note(self.bar, f"validating {index}/{source.batches_per_epoch}")
            yield source.batch(index)

    def _save(self, states: dict[str, torch.Tensor]) -> None:
        self._read()  # weights that are not numbers are never saved
        state = self.state
        state.seconds = self.seconds_before + self.job.clock() - self.started
        self._settle_records()
        tensors = {
            "model": model_tensors(self.job.model),
            "optimizer": optimizer_tensors(self.job.model, self.optimizer),
            "random": states,
        }
        self.checkpoints.save(Snapshot(tensors, state.as_json()))
        self.saved_at = self.job.clock()

    def _settle_records(self) -> None:
        self.state.log, self.state.samples = self.log.written(), self.samples.written()

    def _stopped(self, states: dict[str, torch.Tensor]) -> Interrupted:
        number = self.interruption.signal_number
        assert number is not None
        self._save(states)
        return Interrupted(
            f"{self.job.name}: stopped at step {self.state.step} of {self.job.steps}; everything "
            f"is saved. Resume with: {self.job.resume_command}",
            number,
        )

    def _result(self) -> TrainingResult:
        return TrainingResult(
            best=TextLoss(**self.state.best),
            files={self.job.best / name: e for name, e in self.state.best_files.items()},
            records={
                self.job.folder / name: written
                for name, written in ((METRICS, self.state.log), (SAMPLES, self.state.samples))
                if written
            },
            best_step=self.state.best_step,
            steps=self.state.step,
            tokens=self.state.tokens,
            seconds=self.state.seconds,
            peak_memory_mb=self.memory.megabytes(),
            peak_gpu_memory_mb=peak_gpu_mb(self.job.device),
            precision=self.precision.name,
            compiled=self.state.compiled,
        )


def _steps_behind(device: torch.device) -> int:
    """How many steps' numbers wait to be read, so that a GPU never waits for this process."""
    return 1 if device.type == "cuda" else 0


def _exp(loss: float | None) -> float | None:
    return None if loss is None else math.exp(min(loss, 700.0))


def evaluate_only(
    model: nn.Module,
    source: BatchSource,
    *,
    device: torch.device,
    section: TrainSection,
    token_bytes: np.ndarray,
    label: str,
) -> TextLoss:
    """Validation of a model in the precision and with the mask that a run of `section` uses.

    Args:
        label: of the progress bar.
    """
    total = source.batches_per_epoch * source.tokens_per_batch
    with progress_bar(label, total, "tok") as bar:

        def batches() -> Iterator[Batch]:
            for index in range(source.batches_per_epoch):
                yield source.batch(index)
                bar.update(source.tokens_per_batch)

        return validate(
            NextTokenLoss(model),
            batches(),
            precision=choose_precision(section.precision, device),
            placement=Placement(device, attend_across_documents=section.attend_across_documents),
            token_bytes=token_bytes,
        )
