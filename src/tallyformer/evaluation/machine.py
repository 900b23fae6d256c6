"""What machine a measurement was made on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import torch


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """Names and sizes, for a report: system, processor, cores, memory; torch's GPU and threads.

    Args:
        device: where torch computes; None where it has no part.
    """
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": psutil.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        **(_of_torch(device) if device else {}),
    }


def _of_torch(device: torch.device) -> dict[str, Any]:
    import torch

    on_gpu = device.type == "cuda"
    return {
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's name; Linux keeps it in /proc, where Python does not look."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
