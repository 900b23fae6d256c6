"""A run up to `export` for a module's tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe, check_recipe
from tallyformer.corpus.primer import articles
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.stages import export, prepare, pretrain
from tallyformer.stages import tokenizer as tokenizer_stage
from tallyformer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, RunFolder]:
    """A run up to `export`, made by the real stages."""
    root = tmp_path_factory.mktemp("export")
    rows = [json.dumps({"text": f"Bond number {i} pays a coupon of {i * 3}."}) for i in range(80)]
    (root / "bonds.jsonl").write_text("\n".join(rows), encoding="utf-8")
    recipe = check_recipe(
        {
            "name": "tiny",
            "description": "Made for a test.",
            "data_root": str(root),
            "model": {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "max_position_embeddings": 32,
            },
            "tokenizer": {"kind": "train", "vocab_size": 270},
            "prepare": {
                "min_chars": 1,
                "workers": 1,
                "sources": [{"name": "bonds", "paths": ["bonds.jsonl"]}],
            },
            "pretrain": {"steps": 2, "micro_batch": 2, "gradient_accumulation": 1},
            "export": {"dtype": "bfloat16"},
        },
        "tiny.yaml",
    )
    run = RunFolder(root / "runs" / "tiny")
    for stage in (tokenizer_stage, prepare, pretrain, export):
        stage.run(recipe, run)
    return recipe, run


LLAMA: dict[str, Any] = {
    "mlp_type": "swiglu",
    "proj_bias": False,
    "mlp_out_bias": False,
    "rope_layout": "half",
}
SHAPES: dict[str, dict[str, Any]] = {
    "tally": {},
    "llama": LLAMA,
    "swiglu, interleaved, every bias, untied": {
        "mlp_type": "swiglu",
        "attention_bias": True,
        "mlp_in_bias": True,
        "tie_word_embeddings": False,
    },
    "llama of another width": {**LLAMA, "hidden_size": 48},
    "llama, llama3 positions": {
        **LLAMA,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10_000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 24,
        },
    },
    "llama, yarn positions": {
        **LLAMA,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10_000.0,
            "factor": 2.0,
            "original_max_position_embeddings": 24,
        },
    },
    "layernorm without bias": {"norm_type": "layernorm"},
    "post-norm layernorm, scaled positions": {
        "norm_type": "layernorm",
        "norm_bias": True,
        "norm_placement": "post",
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
    },
}
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 48,
}
# Ten times the usual spread: with 0.02 attention is almost uniform, and a wrong mask or a wrong
# rotation would hide below the tolerance.
SPREAD = 0.2


@pytest.fixture(scope="session")
def vocabulary() -> Tokenizer:
    """A small vocabulary, learnt from the shipped articles."""
    return Tokenizer.train(islice(articles(), 4), 320)


@pytest.fixture(scope="session")
def model_folder(
    vocabulary: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A function that gives the folder of a tiny model by its name in `SHAPES`, or "stock llama".

    Every folder is written once.
    """
    root = tmp_path_factory.mktemp("models")
    ids = {
        "bos_token_id": vocabulary.eot_id,
        "eos_token_id": vocabulary.eot_id,
        "pad_token_id": vocabulary.pad_id,
    }

    def make(name: str) -> Any:
        torch.manual_seed(0)
        common = {**SIZES, **ids, "vocab_size": vocabulary.vocab_size, "initializer_range": SPREAD}
        if name == "stock llama":  # what ours never has: fewer heads of keys, other head sizes
            config = LlamaConfig(
                **common, num_key_value_heads=2, head_dim=24, attention_bias=True, mlp_bias=True
            )
            return LlamaForCausalLM(config)
        return TallyFormerForCausalLM(TallyFormerConfig(**{**common, **SHAPES[name]}))

    def folder(name: str) -> Path:
        place = root / name
        if not place.is_dir():
            model = make(name)
            for parameter in model.parameters():
                if parameter.ndim == 1:  # ones and zeros at the start hide what is left out
                    torch.nn.init.normal_(parameter, mean=float(parameter[0].detach()), std=SPREAD)
            model.save_pretrained(place)
            vocabulary.save(place, model_max_length=SIZES["max_position_embeddings"])
        return place

    return folder
