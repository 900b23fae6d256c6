"""The real command line in subprocesses, on tiny recipes and a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
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
            timeout=300,
        )

    return run


def command() -> str:
    """The installed script, beside this Python."""
    return str(Path(sys.executable).with_name("tallyformer"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with a trained tokenizer and one small text file."""
    text = "".join(TEXT.format(i) for i in range(400))
    (tmp_path / "texts").mkdir()
    for part in range(20):
        piece = text[part * len(text) // 20 : (part + 1) * len(text) // 20]
        (tmp_path / "texts" / f"{part:02}.txt").write_text(piece, encoding="utf-8")
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"""
name: tiny
data_root: {tmp_path}
model: {{hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64,
         max_position_embeddings: 32, dropout: 0.0}}
tokenizer: {{kind: train, vocab_size: 300}}
prepare:
  workers: 1
  validation_fraction: 0.2
  sources: [{{name: texts, paths: ["texts/*.txt"]}}]
pretrain: {{steps: 4, micro_batch: 2, gradient_accumulation: 2, evaluations: 1}}
""",
        encoding="utf-8",
    )
    return path


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
