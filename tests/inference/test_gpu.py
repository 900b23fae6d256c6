"""Generation on a GPU. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from tallyformer.inference.running_batch import RunningBatch
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

pytestmark = pytest.mark.gpu

CONTEXT = 12


def chosen_ids(device: torch.device) -> list[list[int]]:
    torch.manual_seed(3)
    config = TallyFormerConfig(
        vocab_size=61,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    model = TallyFormerForCausalLM(config).to(device).eval()
    prompts = [[2, 3, 4], [5], [7, 8, 9, 10, 11]]
    batch = RunningBatch(model, context=CONTEXT, prompts=prompts, device=device)
    logits_BV, steps = batch.prefill(), []
    for _ in range(3 * CONTEXT):
        steps.append(logits_BV.argmax(dim=1).tolist())
        logits_BV = batch.step(steps[-1])
    return steps


def test_generation_gives_the_ids_that_the_cpu_gives(gpu: torch.device) -> None:
    """Greedy, over the context's end; random weights leave no ties."""
    assert chosen_ids(gpu) == chosen_ids(torch.device("cpu"))
