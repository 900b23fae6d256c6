"""ONNX: writing a model, and running it in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tallyformer.export.decoder import Source
from tallyformer.export.engine_check import Tolerance
from tallyformer.export.int8 import rounded_to_int8
from tallyformer.export.onnx_graph import build_graph

MODEL = "model.onnx"
WEIGHTS = "model.onnx.data"
LARGEST_FILE = 2**31 - 2**24
"""What a file of this format can hold is 2 GiB; some of it is the graph."""
TOLERANCE = {"float32": Tolerance(1e-4, 1e-4), "int8": Tolerance(0.15, 0.25)}
"""int8 rounds what is multiplied, with one scale for all positions of a call."""


def write(source: Source, folder: Path, *, dtype: str, largest: int = LARGEST_FILE) -> None:
    """Write `model.onnx` and the tokenizer.

    Weights that do not fit into one file lie beside it in `model.onnx.data`.

    Args:
        source: the model.
        folder: an existing one.
        dtype: "float32" or "int8".
        largest: bytes that the first file may have.
    """
    graph = build_graph(source.decoder, int8=dtype == "int8")
    apart = graph.ByteSize() >= largest
    onnx.save_model(
        graph, folder / MODEL, save_as_external_data=apart, location=WEIGHTS if apart else None
    )
    source.tokenizer.save(folder, model_max_length=source.decoder.shape.context)


def rounding(dtype: str, matrix: np.ndarray) -> np.ndarray:
    """A matrix as it is stored."""
    return rounded_to_int8(matrix) if dtype == "int8" else matrix


class OnnxEngine:
    """A written folder in onnxruntime, on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.name = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            folder / MODEL, options, providers=["CPUExecutionProvider"]
        )
        self._caches = [
            value for value in self._session.get_inputs() if value.name.startswith("past")
        ]

    def logits(self, ids_T: np.ndarray) -> np.ndarray:
        """See `OtherEngine`."""
        found: np.ndarray = self._run(ids_T, self._empty(), keep=0)[0][0]
        return found

    def greedy(self, ids_T: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """See `OtherEngine`."""
        fresh, past = ids_T, self._empty()
        ids, rows = [], []
        for _ in range(steps):
            (logits, *past) = self._run(fresh, past, keep=1)
            rows.append(logits[0, -1])
            ids.append(int(rows[-1].argmax()))
            fresh = np.array(ids[-1:], np.int64)
        return np.array(ids, np.int64), np.stack(rows)

    def _empty(self) -> list[np.ndarray]:
        """A cache of no tokens: (1, heads, 0, head size) for each input."""
        return [np.zeros((1, v.shape[1], 0, v.shape[3]), np.float32) for v in self._caches]

    def _run(self, ids_T: np.ndarray, past: list[np.ndarray], keep: int) -> Any:
        seen = past[0].shape[2]
        feed = {
            "input_ids": ids_T[None],
            "attention_mask": np.ones((1, seen + len(ids_T)), np.int64),
            "position_ids": np.arange(seen, seen + len(ids_T))[None],
            "num_logits_to_keep": np.array(keep, np.int64),
            **{value.name: cache for value, cache in zip(self._caches, past, strict=True)},
        }
        return self._session.run(None, feed)


def load(folder: Path, source: Source) -> OnnxEngine:
    """A written folder in onnxruntime."""
    return OnnxEngine(folder)
