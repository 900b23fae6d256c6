"""Tiny training jobs, made the same way in the tests and in the processes that tests start.

    python jobs.py FOLDER PRECISION [KILL_SECONDS ...]

runs a job in FOLDER: it forks a process for each KILL_SECONDS, ends it with SIGKILL after this many
seconds, and then forks one that runs to the end.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tallyformer.config.training import OptimizerSection, PretrainSection
from tallyformer.data.batch import IGNORED, Batch
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.training.job import TrainingJob, TrainingResult
from tallyformer.training.loop import train
from tallyformer.training.losses import NextTokenLoss

VOCABULARY = 61
CONTEXT = 12


@dataclass
class RandomBatches:
    """Ids drawn from a few fixed patterns, in several documents a row, some labels missing."""

    rows: int = 4
    context: int = CONTEXT
    batches_per_epoch: int = 6
    ignored: float = 0.2
    first: int = 0

    @property
    def tokens_per_batch(self) -> int:
        return self.rows * self.context

    def batch(self, index: int) -> Batch:
        g = torch.Generator().manual_seed(self.first + index % self.batches_per_epoch)
        start = torch.randint(VOCABULARY, (self.rows, 1), generator=g)
        step = torch.randint(1, 4, (self.rows, 1), generator=g)
        ids = (start + step * torch.arange(self.context + 1)) % VOCABULARY
        labels = ids[:, 1:].clone()
        labels[torch.rand(labels.shape, generator=g) < self.ignored] = IGNORED
        segments = (torch.rand(labels.shape, generator=g) < 0.2).cumsum(1, dtype=torch.int32)
        return Batch(ids[:, :-1], labels, segments)

    def documents(self, index: int) -> list[str]:
        return [f"document {index % self.batches_per_epoch}"]


def tiny_model(**overrides: Any) -> TallyFormerForCausalLM:
    values: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": CONTEXT,
        "dropout": 0.1,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    torch.manual_seed(3)
    return TallyFormerForCausalLM(TallyFormerConfig(**{**values, **overrides}))


def section(**overrides: Any) -> PretrainSection:
    values: dict[str, Any] = {
        "steps": 20,
        "micro_batch": 4,
        "gradient_accumulation": 2,
        "evaluations": 4,
        "log_every": 3,
        "precision": "fp32",
        "compile": "off",
        "optimizer": OptimizerSection(learning_rate=1e-2),
    }
    return PretrainSection(**{**values, **overrides})


def job(folder: Path, *, train_source: Any = None, model: Any = None, **overrides: Any) -> Any:
    model = model or tiny_model()
    how = section(**overrides)
    return TrainingJob(
        name="pretrain",
        model=model,
        make_loss=lambda model, compiled: NextTokenLoss(model, how.z_loss, compiled=compiled),
        train=train_source or RandomBatches(),
        validation=RandomBatches(batches_per_epoch=2, first=100),
        section=how,
        folder=folder,
        best=folder / "best",
        save_best=lambda best: (best / "weights.txt").write_text(fingerprint(model)) and None,
        seed=5,
        device=torch.device("cpu"),
        token_bytes=np.full(VOCABULARY, 2, dtype=np.int32),
        flops_per_token=1e6,
        head_flops=2e5,
        resume_command="tallyformer pretrain --resume",
        restart_command=lambda changes: f"RESTART {changes}",
        take_samples=lambda: [next_ids(model)],
    )


def next_ids(model: Any) -> dict[str, str]:
    """What a model computes for two ids, to the bit; it also uses up random numbers."""
    assert not model.training
    torch.rand(1), random.random(), np.random.rand()
    with torch.inference_mode():
        logits = model(torch.tensor([[7, 8]])).logits
    return {"prompt": "7 8", "text": logits[0, -1, :3].numpy().tobytes().hex(), "expected": ""}


def fingerprint(model: Any) -> str:
    """The exact bits of all weights."""
    return " ".join(p.detach().numpy().tobytes().hex() for p in model.parameters())


def run(folder: Path, **overrides: Any) -> tuple[TrainingResult, str]:
    """Train a fresh tiny model and return its result and its weights' bits."""
    one = job(folder, **overrides)
    return train(one), fingerprint(one.model)


def main() -> None:
    torch.set_num_threads(1)
    folder, precision, *delays = sys.argv[1:]
    importlib.import_module("torch.utils.tensorboard")  # not again in each forked process
    for delay in [*map(float, delays), None]:
        child = os.fork()
        if not child:
            # A checkpoint at every step: kills meet every phase of writing one.
            run(Path(folder), precision=precision, checkpoint_minutes=1e-9, steps=100)
            os._exit(0)
        if delay is not None:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
