"""What the device reaches at most: matrix products, and copies within its memory."""

from __future__ import annotations

from typing import Any

import torch
from measuring import seconds_of, spread

SIDES = {"cuda": 8192, "cpu": 256}
"""Of the square products: large enough to fill the device."""
COPIED = {"cuda": 4 * 2**30, "cpu": 2**22}
"""Bytes: several times what a cache holds."""


def matrix_flops(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> dict[str, Any]:
    """FLOP/s of square products of random numbers (products of zeros are faster)."""
    side = SIDES[device.type]
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)

    def ten_products() -> None:
        for _ in range(10):
            a @ b

    ten_products()
    return spread([10 * 2 * side**3 / seconds_of(ten_products, device) for _ in range(rounds)])


def copy_bytes(device: torch.device, rounds: int = 5) -> dict[str, Any]:
    """Bytes a second that a copy within the device's memory reads and writes."""
    source = torch.randint(256, (COPIED[device.type],), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    target.copy_(source)
    total = 2 * source.numel()
    return spread([total / seconds_of(lambda: target.copy_(source), device) for _ in range(rounds)])
