"""What the server says of a model's size is what transformers counts, however it is stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx2
import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from tallyformer.export.whole_numbers import quantize_folder
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.server.model_sizes import sizes_of


@pytest.fixture(scope="module")
def model(tally_folder: Path) -> TallyFormerForCausalLM:
    return TallyFormerForCausalLM.from_pretrained(tally_folder)


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_parameters_are_those_that_were_learned(
    model: TallyFormerForCausalLM, tally_folder: Path, tmp_path: Path, bits: int | None
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tally_folder, folder)
    if bits is not None:
        quantize_folder(folder, bits)
    assert sizes_of(folder).parameters == model.num_parameters()


def test_a_decoder_of_another_kind_has_sizes_too(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=97, n_positions=16, n_embd=8, n_layer=3, n_head=2)
    )
    model.save_pretrained(tmp_path)
    found = sizes_of(tmp_path)
    assert (found.layers, found.heads, found.hidden) == (3, 2, 8)
    assert found.parameters == model.num_parameters()


def test_every_model_has_its_sizes_on_its_card(
    http: httpx2.Client, model: TallyFormerForCausalLM
) -> None:
    for card in http.get("/v1/models").json()["data"]:
        assert card["parameters"] == model.num_parameters()
        assert (
            card["context_length"] == model.config.max_position_embeddings == card["max_model_len"]
        )
        assert card["layers"] == model.config.num_hidden_layers
        assert card["heads"] == model.config.num_attention_heads
        assert card["hidden_size"] == model.config.hidden_size
