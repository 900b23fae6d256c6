"""The native library's functions, through ctypes. Nothing here looks into tensors.

Every call gives up Python's lock, so that other threads run while the library computes.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_void_p
from pathlib import Path
from typing import Any, ClassVar

VERSION = 4
"""Of the functions; `api.cpp` has the same number."""

KINDS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}
PARTS = {"embedding": 0, "head": 1, "qkv": 2, "proj": 3, "fc1": 4, "gate": 5, "fc2": 6}
NORMS = {"attention": 0, "mlp": 1, "final": 2}


def _fields(names: str, kind: Any) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class CShape(ctypes.Structure):
    """`tally::Shape`."""

    _fields_: ClassVar[Any] = [
        *_fields("vocab hidden layers heads kv_heads head_size inner context", c_int32),
        *_fields("layer_norm post_norm swiglu halves narrow_cache", c_int32),
        ("eps", c_float),
    ]


class CDraw(ctypes.Structure):
    """`tally::Draw`."""

    _fields_: ClassVar[Any] = [
        ("uniform", c_double),
        *_fields("temperature top_p min_p repetition frequency presence", c_float),
        *_fields("top_k independent given alternatives", c_int32),
        *_fields("generated_count seen_count bias_count drawn", c_int32),
        *_fields("processed generated times seen bias_ids biases allowed", c_void_p),
        *_fields("alternative_ids alternative_logprobs", c_void_p),
        ("logprob", c_float),
        ("id", c_int32),
    ]


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "tally_version": (c_int, []),
    "tally_kernels": (c_char_p, [c_char_p]),
    "tally_create": (c_void_p, [c_void_p, c_int, c_char_p]),
    "tally_destroy": (None, [c_void_p]),
    "tally_shape_matrix": (c_int, [c_void_p, *[c_int] * 6]),
    "tally_fill_matrix": (None, [c_void_p, *[c_int] * 4, c_void_p, c_void_p]),
    "tally_pack_matrix": (c_int, [c_void_p, c_int, c_int]),
    "tally_set_bias": (c_int, [c_void_p, c_int, c_int, c_void_p]),
    "tally_set_norm": (c_int, [c_void_p, c_int, c_int, c_void_p, c_void_p]),
    "tally_set_angles": (None, [c_void_p, c_int, c_int, c_void_p, c_void_p]),
    "tally_reserve": (c_int, [c_void_p, c_int]),
    "tally_drop_slot": (None, [c_void_p, c_int]),
    "tally_copy_slot": (c_int, [c_void_p, *[c_int] * 3]),
    "tally_step": (
        c_int,
        [c_void_p, c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_void_p],
    ),
    "tally_choose": (c_int, [c_void_p, c_int, c_void_p, c_int, c_size_t, c_void_p]),
}


def load_library(path: Path) -> ctypes.CDLL:
    """The library's functions with their types.

    Raises:
        OSError: it cannot be loaded here, or is of another version.
    """
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name, None)
        if function is None:
            raise OSError(f"{path}: has no {name}")
        function.restype, function.argtypes = result, arguments
    if library.tally_version() != VERSION:
        raise OSError(f"{path}: is of another version")
    return library
