"""Tensors read with NumPy alone are those that the safetensors library reads."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tallyformer.artifacts.tensor_files import stored_tensors, tensors_of
from tallyformer.errors import CheckpointError

from .damage import flipped_bits

_KINDS = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
]
_SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
FIX = "Fetch it again"


def plain(tensor: torch.Tensor) -> bytes:
    if not tensor.numel():
        return b""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


@settings(max_examples=40)
@given(
    drawn=st.dictionaries(
        st.text(max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(_KINDS), _SHAPES),
        max_size=5,
    )
)
def test_every_type_and_shape_reads_as_it_was_saved(
    drawn: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("file") / "some.safetensors"
    saved = {name: (torch.randn(shape) * 3).to(kind) for name, (kind, shape) in drawn.items()}
    save_file(saved, file, metadata={"format": "pt"})

    read = {name: stored.read() for name, stored in tensors_of(file, fix=FIX).items()}

    assert {name: array.shape for name, array in read.items()} == {
        name: tuple(tensor.shape) for name, tensor in saved.items()
    }
    assert {name: array.tobytes() for name, array in read.items()} == {
        name: plain(tensor) for name, tensor in saved.items()
    }


@settings(max_examples=40)
@given(first=st.integers(0, 7), end=st.none() | st.integers(0, 9))
def test_some_rows_are_those_rows_of_the_whole(
    first: int, end: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("file") / "some.safetensors"
    save_file({"a": torch.zeros(3), "w": torch.arange(42.0).reshape(7, 3, 2)}, file)

    stored = tensors_of(file, fix=FIX)["w"]

    np.testing.assert_array_equal(stored.read(first, end), stored.read()[first:end])


def test_weights_in_several_files_are_found_by_their_index(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, eos_token_id=None, bos_token_id=None,
        )
    )  # fmt: skip
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2

    read = stored_tensors(tmp_path, fix=FIX)

    assert {name: stored.read().tobytes() for name, stored in read.items()} == {
        name: plain(tensor) for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({}, "no weight_map"),
        ({"a": "../other.safetensors"}, "is not a file beside it"),
        ({"a": 3}, "is not a file beside it"),
        ({"a": "gone.safetensors"}, "gone.safetensors: missing"),
        ({"b": "part.safetensors"}, "b is not in part.safetensors"),
    ],
)
def test_an_index_that_leads_nowhere_is_one_line(
    places: dict[str, Any], words: str, tmp_path: Path
) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "part.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))

    assert words in refusal(lambda: stored_tensors(tmp_path, fix=FIX))


def refusal(action: Callable[[], Any]) -> str:
    """What a call is refused with: one line that ends with the fix."""
    with pytest.raises(CheckpointError) as caught:
        action()
    said = str(caught.value)
    assert "\n" not in said and said.endswith(f". {FIX}")
    return said


def test_a_file_that_is_damaged_as_a_whole_is_one_line(
    tmp_path: Path, shapes_of_damage: dict[str, Callable[[Path], None]]
) -> None:
    for name, damage in shapes_of_damage.items():
        place = tmp_path / name
        place.mkdir()
        save_file({"a": torch.zeros(2)}, place / "model.safetensors")
        damage(place / "model.safetensors")
        refusal(lambda place=place: stored_tensors(place, fix=FIX))
    refusal(lambda: stored_tensors(tmp_path, fix=FIX))


def test_a_flipped_bit_is_refused_or_reads_as_the_library_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2), "b": torch.zeros(2, 1)}, file)
    refused = 0
    for _ in flipped_bits(file, every=3):
        try:
            read = {n: (s.dtype, s.read()) for n, s in tensors_of(file, fix=FIX).items()}
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        with safe_open(file, "pt") as opened:
            assert set(opened.keys()) == set(read)
            for name, (dtype, array) in read.items():
                assert opened.get_slice(name).get_dtype() == dtype
                assert plain(opened.get_tensor(name)) == array.tobytes()
    assert refused > 100


def written(file: Path, header: Any, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(dtype: Any = "F32", shape: Any = (2,), span: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ([], "not names and values"),
        ({"a": 3}, "a: no dtype and shape"),
        ({"a": entry(dtype="F99")}, "dtype 'F99'"),
        ({"a": entry(dtype=["F32"])}, "is not known here"),
        ({"a": entry(shape=[2.0])}, "whole numbers"),
        ({"a": entry(shape=[-2])}, "whole numbers"),
        ({"a": entry(shape=[True])}, "whole numbers"),
        ({"a": entry(span=[0])}, "whole numbers"),
        ({"a": entry(shape=[3])}, "does not fill its place"),
        ({"a": entry(shape=[10**30, 10**30])}, "does not fill its place"),
        ({"a": entry(span=[8, 0])}, "does not fill its place"),
        ({"a": entry(), "b": entry()}, "overlap"),
        ({"a": entry(span=[8, 16])}, "overlap or leave gaps"),
        ({"a": entry(shape=[1], span=[0, 4])}, "bytes where"),
        ({"a": entry(shape=[4], span=[0, 16])}, "bytes where"),
        (b'{"a": ', "not JSON"),
    ],
)
def test_a_header_that_lies_is_one_line(header: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    written(file, header, bytes(8))

    assert words in refusal(lambda: tensors_of(file, fix=FIX))


def test_a_header_longer_than_the_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 2**63) + b"{}")

    assert "header does not fit" in refusal(lambda: tensors_of(file, fix=FIX))


def test_a_file_cut_after_it_was_opened_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(100)}, file)
    stored = tensors_of(file, fix=FIX)["a"]
    file.write_bytes(file.read_bytes()[:-4])

    assert "ends within a tensor" in refusal(stored.read)
