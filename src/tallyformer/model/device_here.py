"""Which device a caller names, and whether this machine may have a GPU. Loads no torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

VARIABLE = "TALLYFORMER_DEVICE"
"""Environment variable that names the device where a caller names none."""
_OF_A_GPU = ("nvidia[0-9]*", "nvidiactl", "dxg", "kfd")
"""Below /dev: of NVIDIA's driver, of Windows' for Linux, of AMD's."""


def named_device(device: Any = None) -> str | None:
    """The device that the caller or $TALLYFORMER_DEVICE names; None if neither does."""
    return os.environ.get(VARIABLE) or None if device is None else str(device)


def may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether it is worth the time to ask torch; False is certain."""
    if platform.system() != "Linux":
        return True
    return any(True for pattern in _OF_A_GPU for _ in devices.glob(pattern))
