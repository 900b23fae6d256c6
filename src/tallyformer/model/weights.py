"""A folder's weights by name, read without torch, those in whole numbers too.

A folder with whole numbers says so in its config.json: `"quantization_config": {"quant_method":
"tallyformer", "bits": 4, "group_size": 32}`. Its tensors are in quantized.safetensors, because
transformers would take what is in model.safetensors for floats. A matrix `NAME` is stored as two
tensors: its numbers `NAME`, int8 (N, K) or, with 4 bits, uint8 (N, ceil(K / 2)) with the even
inputs in the low halves, each + 8; and `NAME_scales`, bfloat16 (N, G). Vectors are floats.

Shapes: N outputs, K inputs, G = ceil(K / group_size) groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tallyformer.artifacts.tensor_files import StoredTensor, stored_tensors, tensors_of
from tallyformer.errors import ArtifactError, CheckpointError
from tallyformer.model.quantized import BITS, METHOD, Quantized, from_bfloat16
from tallyformer.model.shape import ModelShape

QUANTIZED_FILE = "quantized.safetensors"
SCALES = "_scales"
Weight = np.ndarray | Quantized
"""float32, bfloat16 bits in uint16, or whole numbers."""
Dtype = Literal["float32", "bfloat16", "int8", "int4"]

_STORED: Mapping[str, Dtype] = {"F32": "float32", "F16": "float32", "BF16": "bfloat16"}


def quantized_bits(config: Mapping[str, Any]) -> int | None:
    """8 or 4 where a config.json says that its weights are whole numbers of ours, else None.

    Raises:
        ArtifactError: they are, in a way that is not known here.
    """
    described = config.get("quantization_config")
    if not isinstance(described, Mapping) or described.get("quant_method") != METHOD:
        return None
    bits = described.get("bits")
    if type(bits) is not int or bits not in BITS:
        raise ArtifactError(
            f"config.json: quantization_config.bits is {str(bits)[:20]!r}, and {METHOD} has "
            f"{' and '.join(map(str, BITS))}. Export the model again"
        )
    return bits


class FolderWeights:
    """The tensors of a model's folder; a matrix is read when it is asked for.

    Args:
        folder: a Hugging Face folder.
        config: its config.json.
        shape: the model's.
        fix: what helps where they cannot be used, as the last sentence of the error.

    Attributes:
        dtype: of the stored matrices; float16 counts as float32, which holds it.

    Raises:
        CheckpointError: a tensor is missing, has another shape or type, or a file is damaged.
        ArtifactError: whole numbers of an unknown kind.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], shape: ModelShape, *, fix: str
    ) -> None:
        self._folder, self._fix = folder, fix
        self._bits = quantized_bits(config)
        if self._bits is None:
            self._stored = stored_tensors(folder, fix=fix)
        else:
            self._stored = tensors_of(folder / QUANTIZED_FILE, fix=fix)
        self._group = _group(config, self._bits)
        self._shapes = shape.tensors()
        for name in self._shapes:
            self._check(name)
        matrix = self._stored[shape.embedding]
        self.dtype: Dtype = "int8" if self._bits == 8 else "int4"
        if self._bits is None:
            self.dtype = _STORED[matrix.dtype]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all tensors that the model needs."""
        return tuple(self._shapes)

    @property
    def unneeded(self) -> list[str]:
        """Tensors that the model has no place for."""
        scales = {name + SCALES for name in self._shapes if self._is_quantized(name)}
        return sorted(self._stored.keys() - self._shapes.keys() - scales)

    def __call__(self, name: str) -> Weight:
        """One tensor of `shape.tensors()`."""
        values = self._stored[name].read()
        if self._is_quantized(name):
            inputs = self._shapes[name][1]
            numbers = values if self._bits == 8 else _unpacked(values, inputs)
            scales = self._stored[name + SCALES].read()
            return Quantized(numbers, scales, self._bits or 8, self._group)
        return values.astype(np.float32) if values.dtype == np.float16 else values

    def _is_quantized(self, name: str) -> bool:
        return self._bits is not None and len(self._shapes[name]) == 2

    def _check(self, name: str) -> None:
        shape = self._shapes[name]
        if not self._is_quantized(name):
            self._expect(name, shape, tuple(_STORED))
            return
        outputs, inputs = shape
        width, kind = (inputs, "I8") if self._bits == 8 else ((inputs + 1) // 2, "U8")
        self._expect(name, (outputs, width), (kind,))
        self._expect(name + SCALES, (outputs, -(-inputs // self._group)), ("BF16",))

    def _expect(self, name: str, shape: tuple[int, ...], kinds: tuple[str, ...]) -> None:
        found: StoredTensor | None = self._stored.get(name)
        if found is None:
            raise CheckpointError(f"{self._folder}: {name} is missing. {self._fix}")
        if found.shape != shape or found.dtype not in kinds:
            raise CheckpointError(
                f"{self._folder}: {name} is {found.dtype} {list(found.shape)}, and "
                f"{' or '.join(kinds)} {list(shape)} belongs there. {self._fix}"
            )


def wide(weight: Weight) -> np.ndarray:
    """A weight as float32."""
    if isinstance(weight, Quantized):
        return weight.dequantized()
    return from_bfloat16(weight) if weight.dtype == np.uint16 else weight


def stored_parts(name: str, weight: Quantized) -> dict[str, np.ndarray]:
    """The two tensors that a folder has for a matrix; the scales are bfloat16 bits."""
    packed = weight.numbers if weight.bits == 8 else _packed(weight.numbers)
    return {name: packed, name + SCALES: weight.scales}


def quantization_config(bits: int, group: int) -> dict[str, Any]:
    """What config.json says of whole numbers."""
    return {"quant_method": METHOD, "bits": bits, "group_size": group}


def _group(config: Mapping[str, Any], bits: int | None) -> int:
    if bits is None:
        return 1
    group = config["quantization_config"].get("group_size")
    if type(group) is not int or not 8 <= group <= 4096 or group % 8:
        raise ArtifactError(
            f"config.json: quantization_config.group_size is {str(group)[:20]!r}, not a multiple "
            "of 8 from 8 to 4096. Export the model again"
        )
    return group


def _packed(numbers_NK: np.ndarray) -> np.ndarray:
    """Two numbers of -8 to 7 in a byte."""
    outputs, inputs = numbers_NK.shape
    shifted = np.full((outputs, inputs + inputs % 2), 8, np.uint8)
    shifted[:, :inputs] = numbers_NK + 8
    return np.asarray(shifted[:, ::2] | (shifted[:, 1::2] << 4), np.uint8)


def _unpacked(packed: np.ndarray, inputs: int) -> np.ndarray:
    numbers = np.empty((len(packed), 2 * packed.shape[1]), np.int8)
    numbers[:, ::2], numbers[:, 1::2] = packed & 15, packed >> 4
    numbers -= 8
    return np.ascontiguousarray(numbers[:, :inputs])
