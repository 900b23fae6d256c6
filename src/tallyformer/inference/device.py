"""The device on which a model answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from tallyformer.errors import UsageError

_DEVICES: Mapping[str, Callable[[], int]] = {
    "cpu": lambda: 1,
    "cuda": torch.cuda.device_count,
    "mps": lambda: int(torch.backends.mps.is_available()),
}
"""How many there are of each kind."""


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; without one, the GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type not in _DEVICES:
        raise UsageError(f"device: {str(device)!r} is unknown. Use one of: {', '.join(_DEVICES)}")
    count = _DEVICES[chosen.type]()
    if (chosen.index or 0) >= count:
        found = f"{count} of them" if count else "none"
        raise UsageError(f"device: {str(device)!r}, but torch finds {found} here. Use 'cpu'")
    return chosen
