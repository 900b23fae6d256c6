"""One way from a folder to a model: the same class, checks and words for every caller."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

import tallyformer
from tallyformer.errors import ArtifactError, CheckpointError, UsageError
from tallyformer.model.llama import to_llama
from tallyformer.model.loading import load_config, load_model
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

LLAMA = {"mlp_type": "swiglu", "proj_bias": False, "mlp_out_bias": False, "rope_layout": "half"}


def test_no_other_file_loads_the_weights_of_a_language_model():
    source = Path(tallyformer.__file__).parent
    loaders = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "AutoModelForCausalLM"
        if isinstance(node.ctx, ast.Load)
    } | {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "from_pretrained"
        if ast.unparse(node.value).endswith("CausalLM")
    }
    assert loaders == {"model/loading.py"}


def test_a_folder_of_ours_loads_with_our_class_and_another_with_its_own(build, ids, tmp_path):
    model = build(**LLAMA)
    model.save_pretrained(tmp_path / "ours")
    to_llama(model).save_pretrained(tmp_path / "llama")
    for name, cls in (("ours", TallyFormerForCausalLM), ("llama", LlamaForCausalLM)):
        loaded = load_model(tmp_path / name)
        assert type(loaded) is cls and not loaded.training
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)


def test_a_name_on_the_hub_loads_as_a_folder_does(build, ids, tmp_path, monkeypatch):
    """Read from a cache as the hub client keeps it."""
    model = build()
    place = tmp_path / "models--some--model"
    model.save_pretrained(place / "snapshots" / ("a" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    loaded = load_model("some/model")
    assert type(loaded) is TallyFormerForCausalLM
    assert torch.equal(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, None])
def test_the_weights_have_the_type_asked_for_or_the_folders(dtype, build, tmp_path):
    build().save_pretrained(tmp_path)
    wanted = torch.float32 if dtype is None else torch.bfloat16
    assert load_model(tmp_path, dtype=dtype).dtype == wanted
    with pytest.raises(UsageError, match="dtype: 'int8' is unknown"):
        load_model(tmp_path, dtype="int8")


def test_dropout_is_that_of_the_folder_unless_given(build, tmp_path):
    build(dropout=0.25).save_pretrained(tmp_path)
    assert load_model(tmp_path).config.dropout == 0.25
    loaded = load_model(tmp_path, dropout=0.5)
    assert loaded.config.dropout == loaded.model.blocks[0].dropout.p == 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": 7}, "the heads do not divide the hidden size"),
        ({"model_type": "no_such_model", "auto_map": {}}, "no_such_model"),
        ({"rope_parameters": 3}, ""),
        ({"norm_type": None}, "norm_type"),
    ],
)
def test_a_configuration_that_describes_no_model_is_one_line(changes, words, build, tmp_path):
    build().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    for read in (load_model, lambda *a, **k: load_config(*a, revision=None, **k)):
        with pytest.raises(ArtifactError) as caught:
            read(tmp_path, fix="Make it again")
        said = str(caught.value)
        assert said.startswith(f"{tmp_path}: cannot be loaded (") and words in said
        assert said.endswith("). Make it again") and "\n" not in said


def test_damaged_weights_are_one_line_with_the_callers_advice(build, tmp_path):
    build().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cannot be loaded \(.*\)\. Make it again") as caught:
        load_model(tmp_path, fix="Make it again")
    assert "\n" not in str(caught.value)
    shutil.rmtree(tmp_path)
    with pytest.raises(ArtifactError, match="no such model folder"):
        load_model(tmp_path)
