"""Matrices as whole numbers of 8 bits with one scale a row, as other engines have them.

Shapes: N outputs, K inputs.
"""

from __future__ import annotations

import numpy as np

_LARGEST = np.float32(127)


def int8_rows(matrix_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers int8 (N, K) and scales float32 (N,); their product is near the matrix.

    Each row's largest absolute value becomes 127. A row of zeros has the scale 1.
    """
    largest_N = np.abs(matrix_NK).max(axis=1)
    scale_N = np.where(largest_N > 0, largest_N / _LARGEST, np.float32(1))
    return np.rint(matrix_NK / scale_N[:, None]).astype(np.int8), scale_N


def rounded_to_int8(matrix_NK: np.ndarray) -> np.ndarray:
    """What `int8_rows` keeps of a matrix, in float32."""
    whole_NK, scale_N = int8_rows(matrix_NK)
    return np.asarray(whole_NK * scale_N[:, None], np.float32)
