"""bfloat16 weights take 12 bits where the kernels read them faster so, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tallyformer.inference.engine.runner import Work
from tallyformer.inference.native.available import kernels
from tallyformer.inference.native.c_functions import PARTS
from tallyformer.inference.native.loading import Loader
from tallyformer.inference.native.runner import NativeRunner
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.model.shape import shape_of

Change = Callable[[str, torch.Tensor], torch.Tensor]

PACKING = [name for name in ("avx512_bf16", "avx512_vnni") if kernels(name)]
IDS = [int(i) for i in np.random.default_rng(0).integers(0, 99, 40)]
ODD = (0.0, -0.0, 1e-30, -1e-38, 1e-40, 3e4, -7e10)
"""What a matrix of small numbers has seldom or never."""

pytestmark = pytest.mark.skipif(not PACKING, reason="needs a processor with AVX-512")


def _as_trained(_: str, weight: torch.Tensor) -> torch.Tensor:
    return weight


def _with_odd_ones(_: str, weight: torch.Tensor) -> torch.Tensor:
    """Also in the first and last block of all, and two in one block."""
    flat = weight.flatten()
    places = torch.randperm(len(flat))[: max(2, len(flat) // 4000)].tolist()
    for n, place in enumerate([0, 1, len(flat) - 1, *places]):
        flat[place] = ODD[n % len(ODD)]
    return flat.view_as(weight)


def _of_all_sizes(_: str, weight: torch.Tensor) -> torch.Tensor:
    return weight * 2.0 ** torch.randint(-40, 0, weight.shape)


def _runner(change: Change, name: str) -> NativeRunner:
    """Nothing is a whole number of panels or blocks; some panels have over 64 blocks."""
    torch.manual_seed(0)
    config = TallyFormerConfig(
        vocab_size=99,
        hidden_size=60,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=1059,
        max_position_embeddings=48,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=2,
    )
    model = TallyFormerForCausalLM(config)
    tensors = {}
    for key, value in model.state_dict().items():
        changed = change(key, torch.randn_like(value) * 0.1) if value.dim() == 2 else value
        tensors[key] = changed.numpy()
    shape = shape_of(config.to_dict())
    return NativeRunner(
        shape, tensors.__getitem__, dtype="bfloat16", vocab_size=99, threads=2, kernels=name
    )


def _packed(runner: NativeRunner) -> set[str]:
    """Parts of the first layer, and the embedding, that are packed."""
    parts = set(PARTS) - {"head", "gate"}
    pack = runner._library.tally_pack_matrix
    return {part for part in parts if pack(runner._handle, PARTS[part], 0)}


def _logits(runner: NativeRunner) -> np.ndarray:
    """Of rows alone, of 2 to 9 together, and of all."""
    found = [runner.compute([Work(0, 0, IDS, len(IDS))]).copy()]
    at = 0
    for count in (1, 2, 3, 4, 5, 6, 7, 8, 1):
        found.append(runner.compute([Work(1, at, IDS[at : at + count], count)]).copy())
        at += count
    runner.release([0, 1])
    return np.concatenate(found)


@pytest.mark.parametrize("name", PACKING)
@pytest.mark.parametrize("change", [_as_trained, _with_odd_ones, _of_all_sizes])
def test_packed_weights_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, change: Change, name: str
) -> None:
    packed = _runner(change, name)
    call = Loader._call

    def all_but_packing(loader: Loader, function: str, *arguments: int | None) -> None:
        if function != "tally_pack_matrix":
            call(loader, function, *arguments)

    monkeypatch.setattr(Loader, "_call", all_but_packing)
    whole = _runner(change, name)
    assert np.array_equal(_logits(packed).view(np.int32), _logits(whole).view(np.int32))
    # Weights of too many sizes would take more memory than before.
    expected = set() if change is _of_all_sizes else set(PARTS) - {"head", "gate"}
    assert _packed(packed) == expected
