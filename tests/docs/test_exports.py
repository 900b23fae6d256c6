"""The snippets of docs/exports.md run as they stand, and print what the model says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tallyformer.export.formats import FORMATS
from tallyformer.export.other_engines import export_model
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams

from .conftest import write_tiny_model

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
    write_tiny_model(
        folder,
        mlp_type="swiglu",
        proj_bias=False,
        mlp_out_bias=False,
        rope_layout="half",
        initializer_range=0.3,
    )
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
