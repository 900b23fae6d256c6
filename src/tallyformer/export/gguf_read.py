"""A GGUF file as it is read back: each tensor brought to float32 and put into the source's model.

Shapes: T positions, N new tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch

from tallyformer.export.decoder import Source, in_halves
from tallyformer.model.shape import Affine


class GgufContents:
    """Stands in for llama.cpp where it is not installed: it shows that the file holds the model."""

    def __init__(self, file: Path, source: Source) -> None:
        version = importlib.metadata.version("gguf")
        self.name = f"gguf {version} (read back; llama-cpp-python is not installed)"
        self._model = copy.deepcopy(source.model)
        stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}

        def read(name: str) -> np.ndarray:
            found = stored[name]
            return np.asarray(gguf.dequantize(found.data, found.tensor_type), np.float32)

        self._model.load_state_dict(_state(source, read), strict=False)

    @torch.inference_mode()
    def logits(self, ids_T: np.ndarray) -> np.ndarray:
        """See `OtherEngine`."""
        logits_BTV = self._model(torch.from_numpy(ids_T)[None], use_cache=False).logits
        found: np.ndarray = logits_BTV[0].numpy()
        return found

    def greedy(self, ids_T: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """See `OtherEngine`."""
        rows, whole_T = [], ids_T
        for _ in range(steps):
            rows.append(self.logits(whole_T)[-1])
            whole_T = np.append(whole_T, rows[-1].argmax())
        return whole_T[len(ids_T) :], np.stack(rows)


def _state(source: Source, read: Callable[[str], np.ndarray]) -> dict[str, torch.Tensor]:
    """The source's tensors by its own names, as the file has them."""
    shape = source.decoder.shape
    state = {
        shape.embedding: read("token_embd.weight"),
        shape.final_norm.weight: read("output_norm.weight"),
        shape.head: read("token_embd.weight" if shape.tied else "output.weight"),
    }

    def put(name: str, names: Affine, *, turned: bool = False) -> None:
        for kind, own in zip(("weight", "bias"), names, strict=True):
            if own is not None:
                values = read(f"{name}.{kind}")
                turn = turned and shape.rope_layout == "half"
                state[own] = in_halves(values, shape.head_dim) if turn else values

    for number in range(shape.layers):
        at, names = f"blk.{number}", shape.block(number)
        assert names.gate is not None
        put(f"{at}.attn_norm", names.attn_norm)
        put(f"{at}.ffn_norm", names.mlp_norm)
        put(f"{at}.attn_q", names.query, turned=True)
        put(f"{at}.attn_k", names.key, turned=True)
        put(f"{at}.attn_v", names.value)
        put(f"{at}.attn_output", names.proj)
        put(f"{at}.ffn_gate", names.gate)
        put(f"{at}.ffn_up", names.fc1)
        put(f"{at}.ffn_down", names.fc2)
    sizes = shape.tensors()
    return {
        name: torch.from_numpy(values[tuple(slice(size) for size in sizes[name])].copy())
        for name, values in state.items()
    }
