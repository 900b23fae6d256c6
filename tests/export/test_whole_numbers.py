"""Laws of a folder in whole numbers: our engine loads it as it is, and torch computes the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tallyformer.errors import ArtifactError, CheckpointError
from tallyformer.export.refresh import refresh_folder
from tallyformer.export.whole_numbers import quantize_folder
from tallyformer.inference.engine.runner import Work
from tallyformer.inference.native.available import available
from tallyformer.inference.native.runner import NativeRunner
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.loading import load_model
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.model.quantized import GROUPS, quantize

SIZES = {
    "vocab_size": 90,
    "hidden_size": 84,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "intermediate_size": 101,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
IDS = [int(i) for i in np.random.default_rng(0).integers(0, 90, 30)]


@pytest.fixture(params=["tally", "llama"])
def floats(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    if request.param == "tally":
        model = TallyFormerForCausalLM(TallyFormerConfig(**SIZES))
    else:
        model = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2))
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    model.save_pretrained(tmp_path / "floats")
    return tmp_path / "floats"


def _quantized(floats: Path, bits: int) -> Path:
    folder = floats.parent / f"int{bits}"
    shutil.copytree(floats, folder)
    quantize_folder(folder, bits)
    return folder


@pytest.mark.parametrize("bits", [8, 4])
def test_torch_computes_what_is_stored(floats: Path, bits: int) -> None:
    model = load_model(_quantized(floats, bits))
    exact = load_model(floats)
    for parameter in exact.parameters():
        if parameter.dim() == 2:
            stored = quantize(parameter.detach().numpy(), bits).dequantized()
            parameter.data = torch.from_numpy(stored)
    ids = torch.tensor([IDS])
    assert torch.equal(model(ids).logits, exact(ids).logits)
    assert getattr(model.config, "quantization_config", None) is None


@pytest.mark.parametrize("bits", [8, 4])
def test_the_native_engine_loads_it_as_it_is(floats: Path, bits: int) -> None:
    if reason := available():
        pytest.skip(reason)
    folder = _quantized(floats, bits)
    stored = NativeRunner.from_folder(folder, vocab_size=90)
    made = NativeRunner.from_folder(floats, vocab_size=90, dtype=f"int{bits}")
    logits = stored.compute([Work(0, 0, IDS, 30)])
    assert np.array_equal(logits, made.compute([Work(0, 0, IDS, 30)]))
    with torch.no_grad():
        expected = load_model(folder)(torch.tensor([IDS])).logits[0].numpy()
    # Rows are rounded to 8 bits, too: errors of about 1/250 each.
    assert np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("bits", [8, 4])
def test_it_is_as_small_as_promised(floats: Path, bits: int) -> None:
    before = load_file(floats / "model.safetensors")
    after = (_quantized(floats, bits) / "quantized.safetensors").stat().st_size
    padded = {8: 1.0, 4: 0.52}[bits]  # a row of an odd number of inputs has a half left over
    scales = 2 / GROUPS[bits] * 1.4  # and groups that are not full
    matrices = sum(v.size for v in before.values() if v.ndim == 2)
    assert after < matrices * (padded + scales) + 20_000


def test_transformers_refuses_it_instead_of_answering_garbage(floats: Path) -> None:
    for trusted in (False, True):
        with pytest.raises((OSError, ValueError, KeyError)):
            AutoModelForCausalLM.from_pretrained(_quantized(floats, 8), trust_remote_code=trusted)
        shutil.rmtree(floats.parent / "int8")


def test_there_is_nothing_to_refresh(floats: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing to refresh"):
        refresh_folder(_quantized(floats, 4))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"bits": 3}, ArtifactError),
        ({"bits": "8"}, ArtifactError),
        ({"bits": None}, ArtifactError),
        ({"bits": 4}, CheckpointError),
        ({"group_size": 0}, ArtifactError),
        ({"group_size": 12}, ArtifactError),
        ({"group_size": 32}, CheckpointError),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    floats: Path, change: dict[str, object], error: type[Exception]
) -> None:
    folder = _quantized(floats, 8)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] |= change
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for load in (load_model, lambda f: NativeRunner.from_folder(f, vocab_size=90)):
        with pytest.raises(error) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
