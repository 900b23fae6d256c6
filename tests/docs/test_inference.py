"""The snippets of docs/inference.md run as they stand, one after another."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from tallyformer.corpus.primer import articles
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer import Tokenizer

_CHECKS = """
assert all(c in "0123456789" for c in llm.generate("Of", number)[0].text)
assert llm.generate("Of", priced)[0].text.startswith("{")
"""
PAGE = Path(__file__).parents[2] / "docs" / "inference.md"


def test_the_snippets_of_the_page_run_in_their_order(tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    folder = tmp_path / "runs/quickstart/model"
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
    )
    TallyFormerForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder, model_max_length=256)
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) > 3
    # Of the third at the latest are the masks.
    script = "\n".join([*snippets[:3], _CHECKS, *snippets[3:], "assert isinstance(pieces, dict)"])
    done = subprocess.run(
        [sys.executable, "-"],
        input=script,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
