"""The real command line in subprocesses, on tiny recipes and a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
RECIPE = """
name: tiny
data_root: {folder}
model: &model
  hidden_size: 32
  num_hidden_layers: 2
  num_attention_heads: 2
  intermediate_size: 64
  max_position_embeddings: 32
  dropout: 0.0
tokenizer: {{kind: train, vocab_size: 300}}
prepare:
  workers: 1
  validation_fraction: 0.2
  sources: [{{name: texts, paths: ["texts/*.txt"]}}]
pretrain: {{epochs: 0.5, micro_batch: 4, gradient_accumulation: 2, evaluations: 1}}
evaluate: {{tokens_per_domain: 300, prompts: ["Profit?"], max_tokens: 8}}
"""
MORE_STAGES = """
teacher:
  model: *model
  train: {{steps: 4, micro_batch: 4, gradient_accumulation: 1, evaluations: 1}}
distill:
  phases: [{{steps: 5, micro_batch: 4, gradient_accumulation: 1, evaluations: 1}}]
sft:
  epochs: 1
  micro_batch: 4
  gradient_accumulation: 1
  evaluations: 1
  sources: [{{name: pairs, paths: [pairs.jsonl]}}]
"""
SFT = """
sft:
  epochs: 0.2
  micro_batch: 4
  gradient_accumulation: 1
  evaluations: 1
  sources: [{name: pairs, paths: [pairs.jsonl]}]
"""
TEXT = "A bond pays interest and returns its face value when it matures. Profit is {} EUR.\n\n"


@pytest.fixture(scope="session")
def tallyformer() -> Run:
    """Run `tallyformer ARGS`; nothing is checked."""

    def run(
        *args: object,
        cwd: Path | None = None,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command(), *map(str, args)],
            cwd=cwd,
            input=stdin,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **(env or {})},
            capture_output=True,
            text=True,
            timeout=900,
        )

    return run


def command() -> str:
    """The installed script, beside this Python."""
    return str(Path(sys.executable).with_name("tallyformer"))


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., Path]:
    """Write a recipe and its texts into a folder; with `full`, one that has every stage."""

    def make(folder: Path, *, full: bool = False) -> Path:
        text = "".join(TEXT.format(i) for i in range(400))
        (folder / "texts").mkdir(parents=True)
        for part in range(20):
            piece = text[part * len(text) // 20 : (part + 1) * len(text) // 20]
            (folder / "texts" / f"{part:02}.txt").write_text(piece, encoding="utf-8")
        pairs = [{"prompt": f"Profit {i}?", "response": f"It is {i} EUR."} for i in range(40)]
        lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
        (folder / "pairs.jsonl").write_text(lines, encoding="utf-8")
        path = folder / "tiny.yaml"
        recipe = RECIPE + (MORE_STAGES if full else "")
        path.write_text(recipe.format(folder=folder), encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="session")
def finished_odd(
    tallyformer: Run, make_recipe: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The place of a whole run, `the run`, in a folder whose name a shell would take apart."""
    place = tmp_path_factory.mktemp("odd") / "it's a $HOME run"
    recipe = make_recipe(place)
    text = recipe.read_text(encoding="utf-8").replace(f"data_root: {place}", "data_root: .") + SFT
    recipe.write_text(text, encoding="utf-8")
    done = tallyformer("run", "--recipe", "tiny.yaml", "--out", "the run", cwd=place)
    assert done.returncode == 0, done.stderr
    (place / "said.txt").write_text(done.stdout, encoding="utf-8")
    return place


@pytest.fixture
def recipe(tmp_path: Path, make_recipe: Callable[..., Path]) -> Path:
    """A recipe with a trained tokenizer and one small source."""
    return make_recipe(tmp_path)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with its tokenizer."""
    import torch

    from tallyformer.model.configuration_tallyformer import TallyFormerConfig
    from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
    from tallyformer.tokenizer.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train([TEXT.format(5)], 290)
    torch.manual_seed(0)
    config = TallyFormerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.4,
        bos_token_id=tokenizer.eot_id,
        eos_token_id=tokenizer.eot_id,
        pad_token_id=tokenizer.pad_id,
    )
    TallyFormerForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder
