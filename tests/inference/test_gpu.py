"""Generation on a GPU. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.gpu

CONTEXT = 12


def chosen_ids(tokenizer: Tokenizer, device: torch.device) -> list[list[int]]:
    torch.manual_seed(3)
    config = TallyFormerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.eot_id,
        eos_token_id=tokenizer.eot_id,
        pad_token_id=tokenizer.pad_id,
    )
    llm = LLM(TallyFormerForCausalLM(config).to(device).eval(), tokenizer)
    params = SamplingParams(temperature=0, max_tokens=3 * CONTEXT, ignore_eos=True)
    return [o.token_ids for o in llm.generate([[2, 3, 4], [5], [7, 8, 9, 10, 11]], params)]


def test_generation_gives_the_ids_that_the_cpu_gives(
    tokenizer: Tokenizer, gpu: torch.device
) -> None:
    """Greedy, over the context's end; random weights leave no ties."""
    assert chosen_ids(tokenizer, gpu) == chosen_ids(tokenizer, torch.device("cpu"))
