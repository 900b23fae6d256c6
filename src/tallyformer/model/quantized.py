"""Weights as whole numbers with a scale for each small group of inputs, and back. Loads no torch.

A weight is about `number * scale`. Numbers of 8 bits are -127 to 127, those of 4 bits -8 to 7; a
scale is a bfloat16, shared by `group` neighbouring inputs of one output.

Shapes: N outputs, K inputs, G = ceil(K / group) groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

METHOD = "tallyformer"
"""Our name in a config.json's `quantization_config`; other methods are other people's."""
GROUPS = {8: 64, 4: 32}
"""Inputs that share a scale, by bits."""
BITS = tuple(GROUPS)


@dataclass(frozen=True)
class Quantized:
    """A matrix in whole numbers.

    Attributes:
        numbers: int8 (N, K).
        scales: bfloat16 bits as uint16 (N, G).
        bits: 8 or 4.
        group: inputs that share a scale.
    """

    numbers: np.ndarray
    scales: np.ndarray
    bits: int
    group: int

    def dequantized(self) -> np.ndarray:
        """float32 (N, K)."""
        wide = np.repeat(from_bfloat16(self.scales), self.group, axis=1)
        return np.asarray(self.numbers * wide[:, : self.numbers.shape[1]], np.float32)


def quantize(weights_NK: np.ndarray, bits: int) -> Quantized:
    """The nearest whole numbers: 8 bits by the largest of a group, 4 bits by the best scale.

    The scale of a group that is not finite is NaN.
    """
    group = GROUPS[bits]
    outputs, inputs = weights_NK.shape
    groups = -(-inputs // group)
    padded = np.zeros((outputs, groups * group), np.float32)
    padded[:, :inputs] = weights_NK
    rows = padded.reshape(outputs * groups, group)
    finite = np.isfinite(rows).all(axis=1)
    rows[~finite] = 0
    scales = _largest(rows) if bits == 8 else _best(rows)
    numbers = _numbers(rows, scales, bits).astype(np.int8)
    scales[~finite] = np.nan
    return Quantized(
        np.ascontiguousarray(numbers.reshape(outputs, -1)[:, :inputs]),
        to_bfloat16(scales).reshape(outputs, groups),
        bits,
        group,
    )


def to_bfloat16(numbers: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 of each float32, halves to the even one, as bits in uint16."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _rounded(scales: np.ndarray) -> np.ndarray:
    return from_bfloat16(to_bfloat16(scales))


def _numbers(rows: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    low, high = (-127, 127) if bits == 8 else (-8, 7)
    return np.asarray(np.clip(np.rint(rows * inverse[:, None]), low, high))


def _largest(rows: np.ndarray) -> np.ndarray:
    return _rounded(np.abs(rows).max(axis=1) / 127)


def _best(rows: np.ndarray) -> np.ndarray:
    """The scale with the least squared error among some near the largest number's.

    The largest number may become -8, so scales have either sign.
    """
    place = np.abs(rows).argmax(axis=1)
    largest = rows[np.arange(len(rows)), place]
    best = np.zeros(len(rows), np.float32)
    least = np.full(len(rows), np.inf, np.float32)
    for levels in np.arange(-9.0, -6.0, 0.25, dtype=np.float32):
        scales = _rounded(largest / levels)
        error = np.square(_numbers(rows, scales, 4) * scales[:, None] - rows).sum(axis=1)
        better = error < least
        best[better], least[better] = scales[better], error[better]
    return best
