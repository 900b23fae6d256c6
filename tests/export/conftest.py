"""A run up to `export` for a module's tests."""

from __future__ import annotations

import json

import pytest

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe, check_recipe
from tallyformer.stages import export, prepare, pretrain
from tallyformer.stages import tokenizer as tokenizer_stage


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
