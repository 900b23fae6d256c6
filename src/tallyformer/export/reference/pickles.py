"""Reading a pickle of tensors and plain numbers without running anything of it.

torch's weights-only unpickler calls nothing that is not on an allow-list. To that list this file
adds plain NumPy numbers, which the earlier system's metrics are made of, and reads them with
stand-ins of its own: a file never reaches NumPy's constructors.
"""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tallyformer.artifacts.paths import usable_path
from tallyformer.errors import CheckpointError


class _PlainDtype:
    """Stands in for `numpy.dtype` while a pickle is read; knows plain numbers only."""

    _CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")

    def __init__(self, code: Any, *_options: Any) -> None:
        if code not in self._CODES:
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({code!r}) is not a plain number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


def _plain_scalar(dtype: _PlainDtype, data: bytes) -> bool | int | float:
    """Stand in for NumPy's scalar constructor; the result is a Python number."""
    number: bool | int | float = np.frombuffer(data, dtype.dtype, count=1)[0].item()
    return number


_ALLOWED: list[Any] = [
    (_PlainDtype, "numpy.dtype"),
    (_plain_scalar, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_plain_scalar, "numpy._core.multiarray.scalar"),  # NumPy 2
]


def read_pickle(file: Path) -> Any:
    """What a file that torch saved holds.

    Raises:
        CheckpointError: it is missing, damaged, or wants more than tensors and plain numbers.
    """
    if not usable_path(file).is_file():
        raise CheckpointError(f"{file}: no such file. Give the path of a reference checkpoint.")
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that are refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it asks for {wanted.group(1)}" if wanted else "it is not a plain checkpoint"
        raise CheckpointError(
            f"{file}: refused, and nothing of it was run: {what}, and only tensors and plain "
            "numbers are read. Save it again with only state_dict and config_dict."
        ) from error
    except Exception as error:
        # A damaged file makes the unpickler fail anywhere, with almost any exception.
        raise CheckpointError(
            f"{file}: damaged or not a torch checkpoint ({type(error).__name__}: {error}). "
            "Copy it again from its source."
        ) from error
