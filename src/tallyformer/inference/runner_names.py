"""What the runners are called, and which number formats each computes in. Loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

RunnerName = Literal["native", "torch"]
RUNNERS: tuple[str, ...] = get_args(RunnerName)
DTYPES: Mapping[str, tuple[str, ...]] = {
    "native": ("float32", "bfloat16", "int8", "int4"),
    "torch": ("float32", "bfloat16", "float16"),
}
"""Of the weights, by runner."""


def known_dtypes(runner: str | None = None) -> tuple[str, ...]:
    """Those of a runner; without one, of all."""
    return tuple(
        dict.fromkeys(d for name in RUNNERS if runner in (None, name) for d in DTYPES[name])
    )
