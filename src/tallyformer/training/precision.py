"""Which number format the matrix products of a run use.

Weights, gradients and optimizer state are float32 always. bf16 and fp16 are autocast (Micikevicius
et al. 2018, https://arxiv.org/abs/1710.03740); fp16 also scales the loss, because its smallest
number is far above a gradient of a mean over thousands of tokens.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tallyformer.errors import TrainingError

PrecisionName = Literal["bf16", "fp16", "fp32"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Precision:
    """A number format on a device."""

    name: PrecisionName
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the matrix products."""
        return _DTYPES[self.name]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which the model's forward pass runs."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for fp16; a scaler that does nothing otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def choose_precision(
    wanted: Literal["auto", "bf16", "fp16", "fp32"], device: torch.device
) -> Precision:
    """The format `wanted`, or for "auto" the fastest safe one of this hardware.

    CPU: bf16 where the processor multiplies it (AVX-512 BF16 or AMX), else fp32. GPU: bf16 where
    supported, else fp16.

    Raises:
        TrainingError: this GPU cannot compute in the format that is wanted.
    """
    if wanted == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise TrainingError(
            f"precision: {torch.cuda.get_device_name(device)} cannot compute in bf16, which the "
            "recipe wants or this run has begun in. Use another machine, or start another run (a "
            "new --out) with precision: auto"
        )
    if wanted != "auto":
        return Precision(wanted, device)
    if device.type == "cpu":
        return Precision("bf16" if cpu_multiplies_bf16() else "fp32", device)
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision("fp16", device)
    return Precision("bf16", device)


def cpu_multiplies_bf16() -> bool:
    """True if this processor has bf16 dot products; emulating them is slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(
        capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
    )
