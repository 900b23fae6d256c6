"""A tiny trained tokenizer and tiny random models, saved as real folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tallyformer.inference.llm import LLM
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer.tokenizer import Tokenizer

CONTEXT = 32
_TEXT = [
    "A bond pays interest and returns its face value when it matures.",
    "Revenue minus cost is profit; profit over revenue is the margin. Zinsen für Jürgen: 5 €.",
    "The market price of a share moves with what people expect the company to earn.",
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(_TEXT, 330)


def _sizes(tokenizer: Tokenizer) -> dict[str, object]:
    # Wide weights give logits that differ by far more than float32 rounding, so that greedy
    # choices are the same in every order of summation.
    return {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.4,
        "bos_token_id": tokenizer.eot_id,
        "eos_token_id": tokenizer.eot_id,
        "pad_token_id": tokenizer.pad_id,
    }


@pytest.fixture(scope="session")
def tally_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tally")
    torch.manual_seed(0)
    TallyFormerForCausalLM(TallyFormerConfig(**_sizes(tokenizer))).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="session")
def llama_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**_sizes(tokenizer))).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="session", params=["tally", "llama"])
def llm(request: pytest.FixtureRequest) -> LLM:
    """The same laws hold for our class and for a stock one."""
    folder = request.getfixturevalue(f"{request.param}_folder")
    return LLM.from_pretrained(folder, device="cpu", runner="torch")


@pytest.fixture(scope="session")
def tally(tally_folder: Path) -> LLM:
    return LLM.from_pretrained(tally_folder, device="cpu")


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> LLM:
    return LLM.from_pretrained(llama_folder, device="cpu")
