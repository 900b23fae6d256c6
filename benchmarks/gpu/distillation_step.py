"""Step 4: the distillation step of tally-51m from a teacher of gpt2-medium's shape, in bf16.

    python benchmarks/gpu/distillation_step.py --out distillation.json [--rehearse]

Weights are random: they do not change the time. The teacher's pass over a batch, the student's step
without a teacher and the whole step take turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from measuring import interleaved, read_options, seconds_of, the_device, write_result

from tallyformer.data.batch import Batch
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.training.compiling import compile_blocks
from tallyformer.training.distillation import DistillationLoss, DistillationWeights
from tallyformer.training.losses import LanguageModelLoss, NextTokenLoss
from tallyformer.training.micro_batch import Placement
from tallyformer.training.precision import Precision
from tallyformer.training.teacher import Teacher


@dataclass(frozen=True)
class Size:
    """What is measured; the default is the real thing."""

    student: Any = None
    teacher: Any = None
    shared: int = 50257
    rows: int = 64
    context: int = 256
    rounds: int = 5
    steps: int = 5
    compiled: bool = True


def rehearsal() -> Size:
    student = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    student |= {"intermediate_size": 64, "max_position_embeddings": 32, "vocab_size": 300}
    student |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    teacher = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 297}
    return Size(student, teacher, 297, 2, 32, rounds=2, steps=1, compiled=False)


def main() -> None:
    options = read_options(__doc__)
    device = the_device(options.rehearse)
    size = rehearsal() if options.rehearse else Size()
    found = measure(size, device)
    whole = found["whole step"]
    summary = [f"{whole['median']:.4g} tokens/s ({whole['least']:.4g} to {whole['most']:.4g})"]
    what = "tokens per second of a distillation step and its parts, bf16"
    values = {"rows": size.rows, "context": size.context, "compiled": size.compiled}
    values |= {"tokens_per_second": found, "summary": summary}
    write_result(options.out, what, device, values)


def measure(size: Size, device: torch.device) -> dict[str, Any]:
    """Tokens per second of the teacher alone, the student alone and both."""
    precision = Precision("bf16", device)
    teacher = Teacher(teacher_model(size.teacher or MEDIUM).to(device), size.shared, "random")
    config = TallyFormerConfig(**{**(size.student or {}), "dropout": 0.0})
    student = TallyFormerForCausalLM(config).to(device).train()
    if size.compiled:
        compile_blocks(student)
    weights = DistillationWeights(temperature=2.5, alpha=0.7, z_loss=1e-4)
    distillation = DistillationLoss(student, teacher, weights, compiled=size.compiled)
    next_token = NextTokenLoss(student, 1e-4, compiled=size.compiled)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True)
    inputs = Placement(device)(random_batch(size, config.vocab_size))

    def teach() -> None:
        teacher.targets(inputs, precision, weights.temperature)

    def train(loss: LanguageModelLoss) -> None:
        scale = 1.0 / inputs.labels.numel()
        objective, _ = loss(inputs, scale, precision)
        objective.backward()
        optimizer.step()
        optimizer.zero_grad()

    parts = {
        "teacher's pass": teach,
        "student's step": lambda: train(next_token),
        "whole step": lambda: train(distillation),
    }
    for part in parts.values():
        part()
        part()

    def speed(part: Any) -> float:
        def several() -> None:
            for _ in range(size.steps):
                part()

        return size.steps * size.rows * size.context / seconds_of(several, device)

    return interleaved({n: lambda p=part: speed(p) for n, part in parts.items()}, size.rounds)


MEDIUM = {"n_embd": 1024, "n_layer": 24, "n_head": 16, "n_positions": 1024, "vocab_size": 50257}
"""The shape of gpt2-medium."""


def teacher_model(shape: dict[str, int]) -> Any:
    """A GPT-2 with random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    end = shape["vocab_size"] - 1
    return GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=end, eos_token_id=end))


def random_batch(size: Size, vocabulary: int) -> Batch:
    """Random ids, two documents a row."""
    ids = torch.randint(min(vocabulary, size.shared), (size.rows, size.context + 1))
    segments = (torch.arange(size.context) >= size.context // 2).int().expand(size.rows, -1)
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), segments.contiguous())


if __name__ == "__main__":
    main()
