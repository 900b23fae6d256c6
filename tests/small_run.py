"""A small prepared run, made once by the real stages and copied for each test."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe, check_recipe
from tallyformer.stages import distill, prepare, pretrain, sft, teacher, tokenizer

WORDS = ["bond", "share", "yield", "rate", "bank", "loan", "asset", "debt", "cash", "risk", "price"]
TRAIN: dict[str, Any] = {
    "steps": 24,
    "micro_batch": 4,
    "gradient_accumulation": 2,
    "evaluations": 2,
    "precision": "fp32",
    "compile": "off",
    "optimizer": {"learning_rate": 5e-3},
}
MODEL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
PHASE = {**TRAIN, "steps": 10, "optimizer": {"learning_rate": 2e-3}}
MakeRecipe = Callable[..., Recipe]


def write_texts(folder: Path) -> None:
    """Sentences with a pattern to learn, and pairs that swap two words."""
    draw = random.Random(0)
    (folder / "texts").mkdir(parents=True)
    for number in range(120):
        start, step = draw.randrange(len(WORDS)), draw.randrange(1, 4)
        words = [WORDS[(start + i * step) % len(WORDS)] for i in range(draw.randrange(20, 60))]
        (folder / "texts" / f"{number}.txt").write_text(" ".join(words) + ".", encoding="utf-8")
    pairs = [(draw.choice(WORDS), draw.choice(WORDS), n) for n in range(80)]
    lines = [{"prompt": f"{a} {b} {n}?", "response": f"{b} {a}."} for a, b, n in pairs]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "pairs.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


@pytest.fixture(scope="session")
def make_recipe(texts: Path) -> MakeRecipe:
    """A recipe with every stage; keywords replace whole sections. Without `distill`, no teacher."""

    def make(**sections: Any) -> Recipe:
        tree: dict[str, Any] = {
            "name": "tiny",
            "data_root": str(texts),
            "model": MODEL,
            "tokenizer": {"kind": "train", "vocab_size": 300},
            "prepare": {
                "min_chars": 1,
                "workers": 1,
                "sources": [{"name": "words", "paths": ["texts/*.txt"]}],
            },
            "pretrain": TRAIN,
            "teacher": {
                "model": {**MODEL, "hidden_size": 48, "dropout": 0.0},
                "train": {**TRAIN, "steps": 60},
            },
            "distill": {
                "phases": [
                    {**PHASE, "temperature": 2.5, "alpha": 0.7},
                    {**PHASE, "temperature": 3.0, "alpha": 0.4},
                ]
            },
            "sft": {
                **TRAIN,
                "sources": [{"name": "pairs", "paths": ["pairs.jsonl"]}],
                "lora": {"r": 4, "alpha": 8},
            },
        }
        if sections.get("distill", tree["distill"]) is None:
            sections = {"teacher": None, **sections}
        return check_recipe({**tree, **sections}, "tiny.yaml")

    return make


def _copy(source: RunFolder, folder: Path) -> RunFolder:
    shutil.copytree(source.path, folder)
    return RunFolder(folder)


@pytest.fixture(scope="session")
def _prepared(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("prepared") / "run")
    recipe = make_recipe()
    tokenizer.run(recipe, run)
    prepare.run(recipe, run)
    return run


@pytest.fixture(scope="session")
def _pretrained(
    _prepared: RunFolder, make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    run = _copy(_prepared, tmp_path_factory.mktemp("pretrained") / "run")
    pretrain.run(make_recipe(), run)
    teacher.run(make_recipe(), run)
    return run


@pytest.fixture(scope="session")
def _tuned(
    _pretrained: RunFolder, make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    run = _copy(_pretrained, tmp_path_factory.mktemp("tuned") / "run")
    distill.run(make_recipe(), run)
    sft.run(make_recipe(), run)
    return run


@pytest.fixture
def prepared(_prepared: RunFolder, tmp_path: Path) -> RunFolder:
    """Tokenizer and shards."""
    return _copy(_prepared, tmp_path / "run")


@pytest.fixture
def pretrained(_pretrained: RunFolder, tmp_path: Path) -> RunFolder:
    """The same with a student and a teacher."""
    return _copy(_pretrained, tmp_path / "run")


@pytest.fixture
def tuned(_tuned: RunFolder, tmp_path: Path) -> RunFolder:
    """The same, distilled and with an adapter."""
    return _copy(_tuned, tmp_path / "run")
