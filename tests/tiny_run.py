"""A recipe that runs in seconds, for tests that need a real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe, check_recipe
from tallyformer.stages import evaluate, prepare, pretrain
from tallyformer.stages import tokenizer as tokenizer_stage
from tallyformer.stages.run import write_recipe

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def tiny_recipe(root: Path, **changes: Any) -> Recipe:
    """A recipe on two small files of made-up text: seconds to run, not to be useful."""
    for name, words in (("bonds", ("coupon", "yield")), ("shares", ("dividend", "price"))):
        rows = [
            {"text": f"Document {i} on {name}: the {words[i % 2]} of number {i * 7 % 31} is {i}."}
            for i in range(120)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    tree: dict[str, Any] = {
        "name": "tiny",
        "description": "Made for a test.",
        "data_root": str(root),
        "model": SIZES,
        "tokenizer": {"kind": "train", "vocab_size": 300},
        "prepare": {
            "min_chars": 1,
            "workers": 1,
            "sources": [{"name": name, "paths": [f"{name}.jsonl"]} for name in ("bonds", "shares")],
        },
        "pretrain": {
            "steps": 6,
            "micro_batch": 4,
            "gradient_accumulation": 1,
            "evaluations": 3,
            "log_every": 1,
            "precision": "fp32",
        },
        "evaluate": {"tokens_per_domain": 3000, "arithmetic": 40, "manners": True, "max_tokens": 4},
    }
    return check_recipe({**tree, **changes}, "tiny.yaml")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, RunFolder]:
    """A run up to `evaluate`, made by the real stages."""
    root = tmp_path_factory.mktemp("tiny")
    recipe, run = tiny_recipe(root), RunFolder(root / "runs" / "tiny")
    run.path.mkdir(parents=True)
    write_recipe(recipe, run.path / "recipe.yaml")
    for stage in (tokenizer_stage, prepare, pretrain, evaluate):
        stage.run(recipe, run)
    return recipe, run
