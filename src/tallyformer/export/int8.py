"""Matrices as whole numbers of 8 bits with one scale a row."""

from __future__ import annotations

import torch

_LARGEST = 127


def int8_rows(weight_NK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers (N, K) in int8 and scales (N,) in float32; their product is near the weights.

    Each row's largest absolute value becomes 127. A row of zeros has the scale 1.
    """
    largest_N = weight_NK.abs().amax(dim=1)
    scale_N = torch.where(largest_N > 0, largest_N / _LARGEST, torch.ones_like(largest_N))
    return (weight_NK / scale_N[:, None]).round().to(torch.int8), scale_N


def rounded_to_int8(weight_NK: torch.Tensor) -> torch.Tensor:
    """What `int8_rows` keeps of a matrix, in float32."""
    whole_NK, scale_N = int8_rows(weight_NK)
    return whole_NK.float() * scale_N[:, None]
