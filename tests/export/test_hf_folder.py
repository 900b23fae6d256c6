"""What is exported loads elsewhere and is the same model, or it is not kept."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import ArtifactError
from tallyformer.export.hf_folder import verify_hf_folder, write_hf_folder
from tallyformer.export.model_card import LOWEST_TRANSFORMERS, UNKNOWN_LICENCE, model_card
from tallyformer.export.verify import largest_difference
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.stages import export
from tallyformer.tokenizer import Tokenizer

LLAMA = {
    "mlp_type": "swiglu",
    "proj_bias": False,
    "mlp_out_bias": False,
    "rope_layout": "half",
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["A bond pays a coupon every year. What is a share of a company?"], 280)


def _model(tokenizer: Tokenizer, **changes: Any) -> TallyFormerForCausalLM:
    torch.manual_seed(1)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 32,
    }
    ids = {
        "bos_token_id": tokenizer.eot_id,
        "eos_token_id": tokenizer.eot_id,
        "pad_token_id": tokenizer.pad_id,
    }
    config = TallyFormerConfig(vocab_size=tokenizer.vocab_size, **sizes, **ids, **changes)
    return TallyFormerForCausalLM(config).eval()


def _write(model: TallyFormerForCausalLM, tokenizer: Tokenizer, folder: Path, dtype: Any) -> str:
    folder.mkdir()
    return write_hf_folder(model, tokenizer, folder, dtype=dtype, card=lambda name: f"# {name}\n")


def _stored_dtypes(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    ("changes", "dtype", "stored", "name"),
    [
        ({}, torch.bfloat16, "BF16", "TallyFormerForCausalLM"),
        (LLAMA, torch.float32, "F32", "LlamaForCausalLM"),
    ],
)
def test_an_exported_folder_is_the_same_model_where_the_package_is_not_installed(
    tokenizer: Tokenizer, tmp_path: Path, changes: Any, dtype: Any, stored: str, name: str
) -> None:
    model = _model(tokenizer, **changes)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folder = tmp_path / "model"
    assert _write(model, tokenizer, folder, dtype) == name
    found = verify_hf_folder(model, folder, dtype=dtype)
    # Other code, same float32 weights: only the order of sums differs.
    assert found.stored_difference < 1e-5
    assert (found.rounding_difference > 1e-5) == (dtype != torch.float32)
    assert _stored_dtypes(folder) == {stored}
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert (folder / "README.md").read_text(encoding="utf-8") == f"# {name}\n"
    assert len({f.stat().st_mode for f in folder.iterdir()}) == 1


def test_a_llama_folder_is_stock_and_any_other_carries_its_code(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    _write(_model(tokenizer, **LLAMA), tokenizer, tmp_path / "llama", torch.float32)
    _write(_model(tokenizer), tokenizer, tmp_path / "tally", torch.float32)
    llama = json.loads((tmp_path / "llama" / "config.json").read_text(encoding="utf-8"))
    tally = json.loads((tmp_path / "tally" / "config.json").read_text(encoding="utf-8"))
    assert llama["model_type"] == "llama" and "auto_map" not in llama
    assert not list((tmp_path / "llama").glob("*.py"))
    assert set(tally["auto_map"]) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForCausalLM",
        "AutoModelForSequenceClassification",
        "AutoModelForTokenClassification",
    }
    for reference in tally["auto_map"].values():
        module, _, cls = reference.partition(".")
        code = (tmp_path / "tally" / f"{module}.py").read_text(encoding="utf-8")
        assert f"class {cls}(" in code


def test_the_generation_config_ends_answers_and_samples_with_care(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    _write(_model(tokenizer), tokenizer, tmp_path / "model", torch.float32)
    text = (tmp_path / "model" / "generation_config.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert found["eos_token_id"] == tokenizer.eot_id
    assert found["pad_token_id"] == tokenizer.pad_id
    assert not {name for name in found if "length" in name or "max_new" in name}
    wanted = LLM.from_pretrained(tmp_path / "model").default_params
    assert wanted == SamplingParams(temperature=0.3, top_k=20, top_p=0.9)
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["model_max_length"] == 32


@pytest.mark.parametrize("options", [{"max_new_tokens": 4}, {"max_length": 12}])
def test_generate_warns_of_no_length(
    tokenizer: Tokenizer, tmp_path: Path, options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _write(_model(tokenizer), tokenizer, tmp_path / "model", torch.float32)
    model = TallyFormerForCausalLM.from_pretrained(tmp_path / "model")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model", trust_remote_code=True)
    inputs = tokens(["A bond"], return_tensors="pt")
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    caplog.clear()
    try:
        model.generate(**inputs, **options)
    finally:
        library.removeHandler(caplog.handler)
    assert not caplog.records


def test_a_padded_batch_of_texts_goes_on_like_each_text_alone(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = _model(tokenizer, **LLAMA, initializer_range=0.2)
    _write(model, tokenizer, tmp_path / "model", torch.float32)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    texts = ["A bond pays a coupon", "A", "What is"]
    together = model.generate(**theirs(texts, padding=True, return_tensors="pt"), **options)
    for text, row in zip(texts, together, strict=True):
        alone = model.generate(**theirs([text], return_tensors="pt"), **options)
        assert torch.equal(row[-4:], alone[0, -4:])


def test_a_folder_with_one_altered_weight_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = _model(tokenizer)
    _write(model, tokenizer, tmp_path / "model", torch.float32)
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.blocks.1.mlp.fc2.weight"][0, 0] += 0.5
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"logits differ from the model's by .* not kept"):
        verify_hf_folder(model, tmp_path / "model", dtype=torch.float32)


def test_a_folder_whose_code_needs_the_package_is_refused(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = _model(tokenizer)
    _write(model, tokenizer, tmp_path / "model", torch.float32)
    code = tmp_path / "model" / "modeling_tallyformer.py"
    code.write_text("import tallyformer\n" + code.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ArtifactError, match="fresh process cannot load it"):
        verify_hf_folder(model, tmp_path / "model", dtype=torch.float32)


def test_a_value_that_is_not_a_number_is_an_infinite_difference() -> None:
    numbers = torch.zeros(2, 3)
    assert largest_difference(numbers, numbers + 0.5) == 0.5
    assert largest_difference(numbers, numbers / 0) == float("inf")
    assert largest_difference(numbers, torch.zeros(2, 4)) == float("inf")


def test_the_stage_leaves_a_signed_folder_that_answers(finished: tuple[Recipe, RunFolder]) -> None:
    _, run = finished
    folder = run.path / "model"
    manifest = run.manifest("export", check=True)
    assert set(manifest.files) == {f.name for f in folder.iterdir() if f.name != "manifest.json"}
    assert manifest.metrics["class"] == "TallyFormerForCausalLM"
    assert manifest.metrics["source"] == "pretrain/best"
    assert manifest.inputs["pretrain"] == run.manifest("pretrain").result
    assert not list(run.path.glob("*.partial"))
    assert LLM.from_pretrained(folder).chat([{"role": "user", "content": "Why?"}]).token_ids


def test_exporting_again_changes_nothing(finished: tuple[Recipe, RunFolder]) -> None:
    recipe, run = finished
    before = {f.name: f.stat().st_mtime_ns for f in (run.path / "model").iterdir()}
    export.run(recipe, run)
    assert before == {f.name: f.stat().st_mtime_ns for f in (run.path / "model").iterdir()}


def test_a_kill_before_the_manifest_leaves_work_that_is_gone_on_with(
    finished: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    """The folder is complete and claimed, but not signed: the next run makes it again."""
    recipe, run = finished
    copy = RunFolder(tmp_path / "run")
    for stage in ("tokenizer", "prepare", "pretrain"):
        copy.path.mkdir(exist_ok=True)
        copy.stage(stage).symlink_to(run.stage(stage))
    work_began = copy.path / "model"
    work_began.mkdir()
    export.work_of(recipe, copy).claim()
    (work_began / "config.json").write_text("{}", encoding="utf-8")
    (copy.path / "model.partial").mkdir()
    assert export.run(recipe, copy).result == run.manifest("export").result
    assert not (work_began / "work.txt").exists()
    assert not (copy.path / "model.partial").exists()
    copy.manifest("export", check=True)


def test_the_model_cards_example_runs_as_it_stands_in_its_folder(
    finished: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    folder = finished[1].path / "model"
    card = (folder / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=folder,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


def test_a_model_card_tells_what_is_known_and_asks_for_what_is_not(
    finished: tuple[Recipe, RunFolder],
) -> None:
    recipe, run = finished
    card = (run.path / "model" / "README.md").read_text(encoding="utf-8")
    tokens = run.manifest("pretrain").metrics["tokens"]
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert f"| pretrain | {tokens:,} | 2 |" in card
    assert "| bonds | bonds.jsonl | " in card and UNKNOWN_LICENCE in card
    assert "trust_remote_code=True" in card
    assert f"It needs transformers >= {LOWEST_TRANSFORMERS}." in card
    stock = model_card(recipe, {}, model_class="LlamaForCausalLM", parameters=7)
    assert "trust_remote_code" not in stock


def test_the_card_asks_for_the_transformers_that_the_package_asks_for() -> None:
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        asked = tomllib.load(file)["project"]["optional-dependencies"]["train"]
    assert f"transformers>={LOWEST_TRANSFORMERS},<6" in asked


def test_the_code_of_a_folder_imports_no_name_that_old_transformers_lack(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Names that came after the lowest version that the model card allows."""
    _write(_model(tokenizer), tokenizer, tmp_path / "model", torch.float32)
    code = "".join(f.read_text(encoding="utf-8") for f in (tmp_path / "model").glob("*.py"))
    assert "slice_logits_to_keep" not in code
