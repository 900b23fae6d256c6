"""`NativeRunner`: the engine's runner in C++, for a CPU. Loads no torch.

Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tallyformer.artifacts.json_files import read_json
from tallyformer.errors import CheckpointError, InvalidRequestError
from tallyformer.inference.engine.runner import Choice, LogitsRow, Work
from tallyformer.inference.native.available import library
from tallyformer.inference.native.library import (
    KINDS,
    NORMS,
    PARTS,
    CDraw,
    CShape,
)
from tallyformer.model.quantized import Quantized, quantize, to_bfloat16
from tallyformer.model.shape import ModelShape, shape_of
from tallyformer.model.weights import FolderWeights, Weight, wide

FIX = "Export the model again, or fetch it again"
SLOTS = 64
"""Sequences that are kept at once, by default."""
PREFILL_CHUNK = 256
"""Most ids of one sequence that a step computes."""

_FINE, _NOT_FINITE, _NOTHING_ALLOWED = 0, 1, 2


class NativeRunner:
    """A `Runner` of the native library.

    Args:
        shape: the model's.
        tensors: gives a tensor of `shape.tensors()` by its name.
        dtype: of the weights: "float32", "bfloat16", "int8" or "int4".
        vocab_size: ids that have a text; a model may have more rows.
        threads: that compute; None: as many as `usable_cores()`.
        slots: most sequences that are kept at once.
        kernels: their name, for tests; None takes the best that the processor can run.

    Raises:
        BuildError, OSError: the library cannot be built or loaded.
        MemoryError: the weights do not fit.
    """

    prefill_chunk: int | None = PREFILL_CHUNK

    def __init__(
        self,
        shape: ModelShape,
        tensors: Callable[[str], Weight],
        *,
        dtype: str,
        vocab_size: int,
        threads: int | None = None,
        slots: int = SLOTS,
        kernels: str | None = None,
    ) -> None:
        self.slots = slots
        self._library = library()
        self._vocab, self._vocab_size = shape.vocab, vocab_size
        self._handle = _create(self._library, shape, dtype, threads or usable_cores(), kernels)
        self._check(self._library.tally_reserve(self._handle, slots))
        _Loader(self._library, self._handle, shape, tensors, dtype).load()
        self._rows = np.empty((0, self._vocab), np.float32)
        self._computed = 0
        self.clear()

    @classmethod
    def from_folder(
        cls, folder: Path, *, vocab_size: int, dtype: str | None = None, **settings: Any
    ) -> NativeRunner:
        """Load the weights of a Hugging Face folder.

        Args:
            folder: of a model whose shape `shape_of` knows.
            vocab_size: ids that have a text.
            dtype: of the weights; None keeps the folder's.
            settings: threads, slots, kernels.

        Raises:
            UnsupportedModelError: only transformers can compute this model.
            ArtifactError, CheckpointError: the folder is damaged.
            BuildError, OSError, MemoryError: as for the class.
        """
        config = read_json(folder / "config.json", fix=FIX)
        shape = shape_of(config)
        weights = FolderWeights(folder, config, shape, fix=FIX)
        return cls(shape, weights, dtype=dtype or weights.dtype, vocab_size=vocab_size, **settings)

    def __del__(self) -> None:
        if handle := getattr(self, "_handle", None):
            self._library.tally_destroy(handle)

    def clear(self) -> None:
        """Forget all, in whatever state a broken-off computation left them."""
        self._slot_of: dict[int, int] = {}
        self._free = list(range(self.slots))[::-1]

    def compute(self, work: Sequence[Work]) -> np.ndarray:
        """Compute these sequences' ids; logits_NV, valid until the next call."""
        ids: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        for w in work:
            slot = self._slot_of.get(w.number)
            if slot is None:
                slot = self._slot_of[w.number] = self._free.pop()
            count = len(w.ids)
            ids += w.ids
            slots += [slot] * count
            positions += range(w.start, w.start + count)
            if w.logits:
                wanted += range(len(ids) - w.logits, len(ids))
        if len(self._rows) < len(wanted):
            self._rows = np.empty((len(wanted), self._vocab), np.float32)
        table = np.array((ids, slots, positions), np.int32)
        rows = np.array(wanted, np.int32)
        failed = self._library.tally_step(
            self._handle,
            len(ids),
            table[0].ctypes.data,
            table[1].ctypes.data,
            table[2].ctypes.data,
            len(wanted),
            rows.ctypes.data,
            self._rows.ctypes.data,
        )
        self._check(failed)
        return self._rows[: len(wanted)]

    def choose(self, logits: np.ndarray, rows: Sequence[LogitsRow]) -> list[Choice]:
        """Choose an id for each row; changes the logits."""
        draws = (CDraw * len(rows))()
        kept = [_fill(draw, row, self._vocab) for draw, row in zip(draws, rows, strict=True)]
        result = self._library.tally_choose(
            self._handle,
            len(rows),
            logits.ctypes.data,
            self._vocab_size,
            self._vocab,
            ctypes.addressof(draws),
        )
        self._check(result)
        return [_choice(draw, arrays) for draw, arrays in zip(draws, kept, strict=True)]

    def fork(self, number: int, new: int, length: int) -> None:
        """Keep the first `length` ids of a sequence as those of a new one, too."""
        slot = self._slot_of[new] = self._free.pop()
        self._check(
            self._library.tally_copy_slot(self._handle, self._slot_of[number], slot, length)
        )

    def release(self, numbers: Collection[int]) -> None:
        """Forget these sequences, all of which are kept."""
        for number in numbers:
            self._free.append(self._slot_of.pop(number))

    def _check(self, result: int) -> None:
        if result == _NOT_FINITE:
            raise CheckpointError(
                "the model's logits are not finite, so its weights are damaged or the dtype is too "
                "narrow. Load it with dtype='float32', or export the model again"
            )
        if result == _NOTHING_ALLOWED:
            raise InvalidRequestError("no id may follow: all are banned. Ban fewer")
        if result:
            raise MemoryError("the native library lacks memory")


def usable_cores() -> int:
    """Cores that this process may use: by affinity, the cgroup's quota and OMP_NUM_THREADS."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _quota()
    limits = [cores] if quota is None else [cores, math.ceil(quota)]
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        limits.append(int(asked))
    return max(1, min(limits))


def _quota() -> float | None:
    """Cores that the cgroup grants, or None."""
    try:
        given, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return None if given == "max" else int(given) / int(period)
    except (OSError, ValueError):
        return None


def _create(
    library: ctypes.CDLL, shape: ModelShape, dtype: str, threads: int, kernels: str | None
) -> int:
    described = CShape(
        vocab=shape.vocab,
        hidden=shape.hidden,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_dim,
        inner=shape.ffn,
        context=shape.context,
        layer_norm=shape.norm == "layer",
        post_norm=shape.norm_placement == "post",
        swiglu=shape.mlp == "swiglu",
        halves=shape.rope_layout == "half",
        narrow_cache=dtype != "float32",
        eps=shape.norm_eps,
    )
    frequencies = np.array(shape.inv_freq, np.float32)
    angles = np.arange(shape.context, dtype=np.float32)[:, None] * frequencies
    cosines = np.ascontiguousarray(np.cos(angles) * np.float32(shape.attention_scaling))
    sines = np.ascontiguousarray(np.sin(angles) * np.float32(shape.attention_scaling))
    handle = library.tally_create(
        ctypes.addressof(described),
        threads,
        None if kernels is None else kernels.encode(),
        cosines.ctypes.data,
        sines.ctypes.data,
    )
    if not handle:
        raise MemoryError("the native library lacks memory")
    return int(handle)


class _Loader:
    """Hands the weights over, a matrix at a time."""

    def __init__(
        self,
        library: ctypes.CDLL,
        handle: int,
        shape: ModelShape,
        tensors: Callable[[str], Weight],
        dtype: str,
    ) -> None:
        self._library, self._handle = library, handle
        self._shape, self._tensors, self._dtype = shape, tensors, dtype

    def load(self) -> None:
        shape = self._shape
        self._matrix("embedding", 0, [shape.embedding])
        if not shape.tied:
            self._matrix("head", 0, [shape.head])
        self._norm("final", 0, shape.final_norm)
        for layer in range(shape.layers):
            names = shape.block(layer)
            self._norm("attention", layer, names.attn_norm)
            self._norm("mlp", layer, names.mlp_norm)
            three = (names.query, names.key, names.value)
            self._linear("qkv", layer, three)
            self._linear("proj", layer, (names.proj,))
            self._linear("fc1", layer, (names.fc1,))
            self._linear("fc2", layer, (names.fc2,))
            if names.gate is not None:
                self._linear("gate", layer, (names.gate,))

    def _norm(self, which: str, layer: int, names: Any) -> None:
        weight = _floats(self._tensors(names.weight))
        bias = None if names.bias is None else _floats(self._tensors(names.bias))
        pointers = [weight.ctypes.data, None if bias is None else bias.ctypes.data]
        self._call("tally_set_norm", NORMS[which], layer, *pointers)

    def _linear(self, part: str, layer: int, names: Sequence[Any]) -> None:
        self._matrix(part, layer, [n.weight for n in names])
        if all(n.bias is not None for n in names):
            bias = np.concatenate([_floats(self._tensors(n.bias)) for n in names])
            self._call("tally_set_bias", PARTS[part], layer, bias.ctypes.data)

    def _matrix(self, part: str, layer: int, names: Sequence[str]) -> None:
        """One matrix of all outputs of several."""
        parts = [_as(self._dtype, self._tensors(name)) for name in names]
        first = parts[0]
        group = first.group if isinstance(first, Quantized) else 1
        shapes = [(p.numbers if isinstance(p, Quantized) else p).shape for p in parts]
        outputs = sum(shape[0] for shape in shapes)
        place = PARTS[part], layer
        self._call("tally_shape_matrix", *place, KINDS[self._dtype], outputs, shapes[0][1], group)
        row = 0
        for tensor, (count, _) in zip(parts, shapes, strict=True):
            numbers, scales = (
                (tensor.numbers, tensor.scales) if isinstance(tensor, Quantized) else (tensor, None)
            )
            self._library.tally_fill_matrix(
                self._handle,
                *place,
                row,
                count,
                numbers.ctypes.data,
                None if scales is None else scales.ctypes.data,
            )
            row += count

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, name)(self._handle, *arguments):
            raise MemoryError("the weights do not fit into memory")


def _floats(weight: Weight) -> np.ndarray:
    return np.ascontiguousarray(wide(weight), np.float32)


def _as(dtype: str, tensor: Weight) -> Weight:
    """A matrix in the numbers that the library is to have."""
    if isinstance(tensor, Quantized) and dtype == f"int{tensor.bits}":
        return tensor
    if dtype == "bfloat16" and isinstance(tensor, np.ndarray) and tensor.dtype == np.uint16:
        return np.ascontiguousarray(tensor)
    floats = _floats(tensor)
    if dtype == "float32":
        return floats
    if dtype == "bfloat16":
        return to_bfloat16(floats)
    return quantize(floats, 8 if dtype == "int8" else 4)


def _fill(draw: CDraw, row: LogitsRow, vocab: int) -> dict[str, np.ndarray]:
    """Put a row's settings in place; returns the arrays that it points to."""
    params = row.params
    arrays: dict[str, np.ndarray] = {}
    draw.uniform = row.uniform
    draw.temperature, draw.top_p, draw.min_p = params.temperature, params.top_p, params.min_p
    draw.top_k, draw.independent = params.top_k, params.mode == "independent"
    draw.repetition = params.repetition_penalty
    draw.frequency, draw.presence = params.frequency_penalty, params.presence_penalty
    draw.given = -1 if row.given is None else row.given
    draw.alternatives = -1 if row.logprobs is None else row.logprobs
    if draw.frequency or draw.presence:
        arrays["generated"] = np.fromiter(row.counts.keys(), np.int32, len(row.counts))
        arrays["times"] = np.fromiter(row.counts.values(), np.int32, len(row.counts))
        draw.generated_count = len(row.counts)
    if draw.repetition != 1:
        arrays["seen"] = np.array(sorted({*row.prompt_ids, *row.counts}), np.int32)
        draw.seen_count = len(arrays["seen"])
    if params.logit_bias or row.banned:
        # An end-of-text id may be one that the model does not have.
        banned = {id_: -np.inf for id_ in row.banned if id_ < vocab}
        bias = {**params.logit_bias, **banned}
        arrays["bias_ids"] = np.fromiter(bias.keys(), np.int32, len(bias))
        arrays["biases"] = np.fromiter(bias.values(), np.float32, len(bias))
        draw.bias_count = len(bias)
    if row.allowed is not None:
        arrays["allowed"] = np.ascontiguousarray(row.allowed, np.uint32)
    if row.logprobs:
        arrays["alternative_ids"] = np.empty(row.logprobs, np.int32)
        arrays["alternative_logprobs"] = np.empty(row.logprobs, np.float32)
    for name, array in arrays.items():
        setattr(draw, name, array.ctypes.data)
    return arrays


def _choice(draw: CDraw, arrays: dict[str, np.ndarray]) -> Choice:
    if draw.alternatives < 0:
        return Choice(draw.id)
    if not draw.alternatives:
        return Choice(draw.id, draw.logprob)
    ids, logprobs = arrays["alternative_ids"].tolist(), arrays["alternative_logprobs"].tolist()
    alternatives = tuple((i, p) for i, p in zip(ids, logprobs, strict=True) if i >= 0)
    return Choice(draw.id, draw.logprob, alternatives)
