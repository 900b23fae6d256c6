"""`tallyformer export --format` writes whole folders that were checked, or nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from transformers import GPT2Config, GPT2LMHeadModel

from tallyformer.artifacts.manifest import read_manifest
from tallyformer.artifacts.model_folder import check_model_folder
from tallyformer.cli.export import export
from tallyformer.errors import ArtifactError, CheckpointError, UsageError
from tallyformer.export import other_engines
from tallyformer.export.decoder import Decoder, read_decoder
from tallyformer.export.formats import FORMATS
from tallyformer.export.other_engines import export_model
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.loading import load_model
from tallyformer.tokenizer import Tokenizer

ModelFolder = Callable[[str], Path]
ENGINES = [name for name in FORMATS if name != "safetensors"]


def _invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(export, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("shape", "dtype", "name"),
    [
        ("tally", None, "TallyFormerForCausalLM"),
        ("llama", "float16", "LlamaForCausalLM"),
        ("stock llama", "bfloat16", "LlamaForCausalLM"),
    ],
)
def test_a_folder_becomes_safetensors_with_its_settings_and_a_manifest(
    shape: str, dtype: str | None, name: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder(shape), tmp_path / "model"))
    out, stored = tmp_path / "out", dtype or "float32"
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6}')
    (folder / "README.md").write_text("# Mine\n")
    arguments = () if dtype is None else ("--dtype", dtype)
    done = _invoke("--format", "safetensors", *arguments, folder, out)
    assert done.exit_code == 0, done.output
    assert f"{out}: safetensors, {stored}. Loaded by transformers" in done.output
    assert json.loads((out / "config.json").read_text())["architectures"] == [name]
    written = load_model(out)
    assert written.dtype == getattr(torch, stored)
    wanted = load_model(folder).to(written.dtype).get_output_embeddings().weight
    assert torch.equal(written.get_output_embeddings().weight, wanted)
    for kept in ("generation_config.json", "README.md"):
        assert (out / kept).read_bytes() == (folder / kept).read_bytes()
    check_model_folder(out)
    manifest = read_manifest(out, made_by="")
    assert manifest.config == {"format": "safetensors", "dtype": stored}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(manifest.inputs)
    assert (manifest.metrics["rounding_difference"] > 1e-4) == (stored != "float32")
    assert LLM.from_pretrained(out).generate("A bond", SamplingParams(max_tokens=3))[0].token_ids
    _damage(out / "model.safetensors")
    with pytest.raises(ArtifactError, match="checksum differs"):
        export_model(out, tmp_path / "again", form="safetensors")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("shape", ["tally", "llama", "stock llama"])
def test_whole_numbers_are_signed_and_answer(
    dtype: str, shape: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = export_model(model_folder(shape), out, form="safetensors", dtype=dtype)
    assert 1e-3 < found["rounding_difference"] < found["largest_logit"]
    check_model_folder(out)
    assert not (out / "README.md").exists()
    assert LLM.from_pretrained(out).generate("A bond", SamplingParams(max_tokens=3))[0].token_ids


def _damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "onnx"], "give the model's FOLDER and the new folder OUT"),
        (["--format", "onnx", "model"], "give the model's FOLDER and the new folder OUT"),
        (["model", "out"], "FOLDER is for --format"),
        (["--dtype", "int8", "--refresh", "model"], "--dtype is for --format"),
        (["--format", "onnx", "--refresh", "model", "model", "out"], "does not go with --refresh"),
        (["--format", "onnx", "--set", "a=b", "model", "out"], "does not go with --set"),
        (["--refresh", "model", "--dry-run"], "does not go with --dry-run"),
        (["--format", "gguff", "model", "out"], "is not one of"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: list[str], said: str) -> None:
    done = _invoke(*arguments)
    assert done.exit_code == 2
    assert said in done.output


def test_a_dtype_that_the_format_does_not_have_is_refused_with_those_it_has(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"safetensors has no q8_0\. Use one of: float32"):
        export_model(model_folder("tally"), tmp_path / "out", form="safetensors", dtype="q8_0")


@pytest.mark.parametrize("form", ENGINES)
def test_a_package_that_is_missing_is_named_with_what_to_install(
    form: str, model_folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError) as refused:
        export_model(model_folder("tally"), tmp_path / "out", form=form)
    message = str(refused.value)
    assert all(package in message for package in FORMATS[form].packages)
    assert "pip install 'tallyformer[export]'" in message
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_overwritten(model_folder: ModelFolder, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match="exists already"):
        export_model(model_folder("tally"), tmp_path / "out", form="safetensors")


@pytest.mark.parametrize("form", ENGINES)
def test_a_model_of_another_class_is_refused_and_nothing_is_left(
    form: str, vocabulary: Tokenizer, tmp_path: Path
) -> None:
    for package in FORMATS[form].packages:
        pytest.importorskip(package)
    config = GPT2Config(vocab_size=vocabulary.vocab_size, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    vocabulary.save(tmp_path / "gpt2")
    with pytest.raises(ArtifactError, match="only a TallyFormer or a stock Llama is exported"):
        export_model(tmp_path / "gpt2", tmp_path / "out", form=form)
    assert [path.name for path in tmp_path.iterdir()] == ["gpt2"]


@pytest.mark.parametrize("dtype", ["float32", "int8", "int4"])
def test_weights_that_are_not_finite_are_named_in_the_source(
    dtype: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    model = load_model(model_folder("tally"))
    name = "model.blocks.0.mlp.fc1.weight"
    with torch.no_grad():
        model.get_parameter(name)[0, 0] = torch.inf
    model.save_pretrained(folder)
    with pytest.raises(CheckpointError) as refused:
        export_model(folder, tmp_path / "out", form="safetensors", dtype=dtype)
    assert str(refused.value).startswith(f"{folder}: {name} holds numbers that are not finite. ")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


@pytest.mark.parametrize("form", ENGINES)
def test_a_folder_whose_logits_differ_is_not_kept(
    form: str, model_folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The written weights are those of a model with one row of one matrix changed."""
    for package in FORMATS[form].packages:
        pytest.importorskip(package)

    def other_weights(folder: Path, *, fix: str) -> Decoder:
        decoder = read_decoder(folder, fix=fix)
        changed = decoder.shape.block(1).value.weight

        def tensor(name: str) -> np.ndarray:
            found = decoder.tensor(name).copy()
            if name == changed:
                found[3] *= -1
            return found

        return dataclasses.replace(decoder, tensor=tensor)

    monkeypatch.setattr(other_engines, "read_decoder", other_weights)
    with pytest.raises(ArtifactError, match=r"the logits of .* differ from the model's by"):
        export_model(model_folder("llama"), tmp_path / "out", form=form)
    assert list(tmp_path.iterdir()) == []
