"""The one choice of a device, for training and for answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from tallyformer.errors import UsageError
from tallyformer.model.device_here import VARIABLE, named_device

_COUNTS: Mapping[str, Callable[[], int]] = {
    "cuda": torch.cuda.device_count,
    "mps": lambda: int(torch.backends.mps.is_available()),
    "cpu": lambda: 1,
}
"""By kind of device, the best first: how many this machine has."""


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for; without one, CUDA, else Apple's MPS, else the CPU.

    Args:
        device: for example "cpu" or "cuda:1"; None takes that of $TALLYFORMER_DEVICE, if it is set.

    Raises:
        UsageError: torch knows no such device, or finds none here.
    """
    wanted = named_device(device)
    if wanted is None:
        return torch.device(next(kind for kind, count in _COUNTS.items() if count()))
    name = "device" if device is not None else VARIABLE
    try:
        chosen = torch.device(wanted)
    except (RuntimeError, TypeError):
        chosen = torch.device("meta")
    if chosen.type not in _COUNTS:
        known = ", ".join(reversed(list(_COUNTS)))
        raise UsageError(f"{name}: {str(wanted)!r} is unknown. Use one of: {known}")
    count = _COUNTS[chosen.type]()
    if (chosen.index or 0) >= count:
        found = f"{count} of them" if count else "none"
        raise UsageError(f"{name}: {str(wanted)!r}, but torch finds {found} here. Use 'cpu'")
    return chosen


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64; Apple's MPS does not."""
    return device.type != "mps"
