"""The library gets a model's shape and weights, a matrix at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from tallyformer.inference.native.c_functions import KINDS, NORMS, PARTS, CShape
from tallyformer.model.quantized import Quantized, quantize, to_bfloat16
from tallyformer.model.shape import Affine, ModelShape
from tallyformer.model.weights import Weight, wide

FIRST_ANGLES = 256
"""Positions whose angles are computed at once."""


def create(
    library: ctypes.CDLL, shape: ModelShape, dtype: str, threads: int, kernels: str | None
) -> int:
    """A model of a shape, without weights yet: its handle.

    Raises:
        MemoryError: there is none left.
    """
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
    handle = library.tally_create(
        ctypes.addressof(described),
        threads,
        None if kernels is None else kernels.encode(),
    )
    if not handle:
        raise MemoryError("the native library lacks memory")
    return int(handle)


class Angles:
    """Tells the library how heads turn, a doubled number of positions at a time.

    Args:
        library: the native one.
        handle: of a model that `create` made.
        shape: the model's.
    """

    def __init__(self, library: ctypes.CDLL, handle: int, shape: ModelShape) -> None:
        self._library, self._handle = library, handle
        self._frequencies = np.array(shape.inv_freq, np.float32)
        self._scaling = np.float32(shape.attention_scaling)
        self._context, self._known = shape.context, 0

    def reach(self, end: int) -> None:
        """Those of all positions before `end`."""
        first = self._known
        if end <= first:
            return
        self._known = min(max(end, 2 * first, FIRST_ANGLES), self._context)
        positions = np.arange(first, self._known, dtype=np.float32)
        angles = positions[:, None] * self._frequencies
        cosines = np.ascontiguousarray(np.cos(angles) * self._scaling)
        sines = np.ascontiguousarray(np.sin(angles) * self._scaling)
        self._library.tally_set_angles(
            self._handle, first, len(positions), cosines.ctypes.data, sines.ctypes.data
        )


class Loader:
    """Hands the weights over.

    Args:
        library: the native one.
        handle: of a model that `create` made.
        shape: the model's.
        tensors: gives a tensor by its name.
        dtype: of the matrices.
    """

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
        """All of them.

        Raises:
            MemoryError: they do not fit.
        """
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

    def _norm(self, which: str, layer: int, names: Affine) -> None:
        weight = _floats(self._tensors(names.weight))
        bias = None if names.bias is None else _floats(self._tensors(names.bias))
        pointers = [weight.ctypes.data, None if bias is None else bias.ctypes.data]
        self._call("tally_set_norm", NORMS[which], layer, *pointers)

    def _linear(self, part: str, layer: int, names: Sequence[Affine]) -> None:
        self._matrix(part, layer, [n.weight for n in names])
        if all(n.bias is not None for n in names):
            bias = np.concatenate([_floats(self._tensors(str(n.bias))) for n in names])
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
        self._call("tally_pack_matrix", *place)

    def _call(self, name: str, *arguments: int | None) -> None:
        if getattr(self._library, name)(self._handle, *arguments) < 0:
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
