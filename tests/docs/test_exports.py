"""The snippets of docs/exports.md run as they stand, and print what the model says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from tallyformer.corpus.primer import articles
from tallyformer.export.formats import FORMATS
from tallyformer.export.other_engines import export_model
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer import Tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "exports.md"
NEEDED = {"onnx": "onnxruntime", "gguf": "llama_cpp", "ctranslate2": "ctranslate2"}
HEADINGS = {"onnx": "ONNX", "gguf": "GGUF", "ctranslate2": "CTranslate2"}


def _snippet(form: str) -> str:
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {HEADINGS[form]}\n")[1]
    found = re.search(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "model"
    tokenizer = Tokenizer.train(islice(articles(), 2), 300)
    torch.manual_seed(3)
    config = TallyFormerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        mlp_type="swiglu",
        proj_bias=False,
        mlp_out_bias=False,
        rope_layout="half",
        initializer_range=0.3,
        bos_token_id=tokenizer.eot_id,
        eos_token_id=tokenizer.eot_id,
        pad_token_id=tokenizer.pad_id,
    )
    TallyFormerForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder, model_max_length=256)
    return folder


@pytest.mark.parametrize("form", NEEDED)
def test_a_snippet_prints_the_greedy_text(form: str, model: Path, tmp_path: Path) -> None:
    for package in (*FORMATS[form].packages, NEEDED[form]):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    export_model(model, tmp_path / form, form=form, dtype="float32")
    params = SamplingParams(max_tokens=20, temperature=0)
    wanted = LLM.from_pretrained(model).generate("Compound interest is", params)[0].text
    done = subprocess.run(
        [sys.executable, "-c", _snippet(form)],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert _letters(done.stdout) == _letters(wanted)


def _letters(text: str) -> str:
    """Without half characters, which llama-cpp-python drops and others show as U+FFFD."""
    return text.replace("\ufffd", "").strip()


def test_the_page_names_every_format_and_dtype() -> None:
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    for name, form in FORMATS.items():
        (row,) = (row for row in rows if row.startswith(f"| `{name}` |"))
        assert all(f"`{dtype}`" in row for dtype in form.dtypes if dtype)
