"""Tensors of a folder's safetensors files, read one at a time with NumPy alone.

The format: 8 bytes with the length of a header, little-endian; the header, one JSON object of
`{"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}`; the tensors, C-ordered.
Source: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from tallyformer.artifacts.json_files import parse_json, read_json
from tallyformer.artifacts.system_errors import advice_on_reading
from tallyformer.errors import CheckpointError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""Of a model whose tensors lie in several files: which has which."""
_TYPES: Mapping[str, type[np.generic]] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "F8_E4M3": np.uint8,
    "F8_E5M2": np.uint8,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
"""NumPy's for each of the format's; those that it does not have are read as their bits."""
_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000
_METADATA = "__metadata__"


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies.

    Attributes:
        file: which.
        dtype: as the format spells it: "F32", "BF16", "I8", ...
        shape: of the whole tensor.
        start: its first byte in the file.
        fix: what helps where it cannot be read, as the last sentence of the error.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    fix: str

    def read(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """Copy the tensor, or rows `first` to `end` of its first dimension, into memory.

        bfloat16 comes as uint16, the upper half of the float32 with the same value; float8 as
        uint8.

        Raises:
            CheckpointError: the file is shorter than it was, or cannot be read.
        """
        kind = np.dtype(_TYPES[self.dtype])
        begin, stop, _ = slice(first, end).indices(self.shape[0] if self.shape else 1)
        rows, inner = max(stop - begin, 0), math.prod(self.shape[1:])
        try:
            with self.file.open("rb") as file:
                file.seek(self.start + begin * inner * kind.itemsize)
                values = np.fromfile(file, kind, rows * inner)
        except OSError as error:
            helps = advice_on_reading(error, self.fix)
            raise _unreadable(self.file, error.strerror, helps) from None
        if len(values) != rows * inner:
            raise _unreadable(self.file, "it ends within a tensor", self.fix)
        return values.reshape((rows, *self.shape[1:]) if self.shape else ())


def stored_tensors(folder: Path, *, fix: str) -> dict[str, StoredTensor]:
    """The tensors of a model's folder by name; their values stay on disk.

    Args:
        folder: with model.safetensors, or with several files and their index.
        fix: what helps where they cannot be used, as the last sentence of the error.

    Raises:
        CheckpointError: there are none, or a file is damaged.
    """
    if os.path.lexists(folder / WHOLE):
        return tensors_of(folder / WHOLE, fix=fix)
    if not os.path.lexists(folder / INDEX):
        raise CheckpointError(f"{folder}: holds no {WHOLE}. {fix}")
    places = _places(folder / INDEX, fix)
    files = {name: tensors_of(folder / name, fix=fix) for name in sorted(set(places.values()))}
    if lost := [tensor for tensor, name in places.items() if tensor not in files[name]]:
        raise _unreadable(folder / INDEX, f"{lost[0]} is not in {places[lost[0]]}", fix)
    return {tensor: files[name][tensor] for tensor, name in places.items()}


def tensors_of(file: Path, *, fix: str) -> dict[str, StoredTensor]:
    """The tensors of one file by name.

    Raises:
        CheckpointError: it is missing or damaged, or holds numbers of a type not known here.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
            if not 2 <= length <= min(_LONGEST_HEADER, size - _LENGTH_BYTES):
                raise ValueError("its header does not fit in it")
            header = parse_json(opened.read(length))
        return dict(_entries(file, header, _LENGTH_BYTES + length, size, fix))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: missing. {fix}") from None
    except OSError as error:
        raise _unreadable(file, error.strerror, advice_on_reading(error, fix)) from None
    except ValueError as reason:
        raise _unreadable(file, str(reason), fix) from None


def _entries(
    file: Path, header: Any, begin: int, size: int, fix: str
) -> Iterator[tuple[str, StoredTensor]]:
    """Each tensor of a header; together they fill the file from `begin` on without a gap."""
    if not isinstance(header, dict):
        raise ValueError("its header is not names and values")
    spans = []
    for name, entry in header.items():
        if name == _METADATA:
            continue
        dtype, shape, (start, end) = _checked(name, entry)
        spans.append((start, end))
        yield name, StoredTensor(file, dtype, shape, begin + start, fix)
    place = 0
    for start, end in sorted(spans):
        if start != place:
            raise ValueError("its tensors overlap or leave gaps")
        place = end
    if begin + place != size:
        raise ValueError(f"{size} bytes where {begin + place} belong")


def _checked(name: str, entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    if not isinstance(entry, dict):
        raise ValueError(f"{name}: no dtype and shape")
    dtype, shape = entry.get("dtype"), entry.get("shape")
    span = entry.get("data_offsets")
    if not (isinstance(dtype, str) and dtype in _TYPES):
        raise ValueError(f"{name}: dtype {str(dtype)[:20]!r} is not known here")
    if not (_are_counts(shape) and _are_counts(span) and len(span) == 2):
        raise ValueError(f"{name}: shape or place is not in whole numbers")
    if span[1] - span[0] != math.prod(shape) * np.dtype(_TYPES[dtype]).itemsize:
        raise ValueError(f"{name}: its shape does not fill its place")
    return dtype, tuple(shape), (span[0], span[1])


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _places(index: Path, fix: str) -> dict[str, str]:
    """Which file beside the index has each tensor."""
    places = read_json(index, fix=fix, error=CheckpointError).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise _unreadable(index, "no weight_map", fix)
    for name in places.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise _unreadable(index, f"{str(name)[:40]!r} is not a file beside it", fix)
    return places


def _unreadable(file: Path, reason: str | None, fix: str) -> CheckpointError:
    return CheckpointError(f"{file}: cannot be read ({reason}). {fix}")
