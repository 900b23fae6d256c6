"""A tiny real model and tokenizer, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer import Tokenizer

TEXT = (
    "A bond pays a coupon every year. A share is a part of a company. Assets equal liabilities "
    "plus equity. What is a bond? What is the coupon? The price of a bond falls when yields rise. "
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT], 300)


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> TallyFormerForCausalLM:
    torch.manual_seed(0)
    config = TallyFormerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        bos_token_id=tokenizer.eot_id,
        eos_token_id=tokenizer.eot_id,
        pad_token_id=tokenizer.pad_id,
        # Far from uniform, so that a wrong mask or label changes the loss.
        initializer_range=0.5,
    )
    return TallyFormerForCausalLM(config).eval()


@pytest.fixture(scope="session")
def model_folder(
    model: TallyFormerForCausalLM, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder
