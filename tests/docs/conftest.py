"""A tiny random model, as a folder that the pages' snippets read."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tallyformer.corpus.primer import articles
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer import Tokenizer


def write_tiny_model(folder: Path, **settings: Any) -> None:
    """Write one; `settings` are the configuration's."""
    tokenizer = Tokenizer.train(islice(articles(), 2), 300)
    torch.manual_seed(3)
    config = TallyFormerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        bos_token_id=tokenizer.eot_id,
        eos_token_id=tokenizer.eot_id,
        pad_token_id=tokenizer.pad_id,
        **settings,
    )
    TallyFormerForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder, model_max_length=256)
