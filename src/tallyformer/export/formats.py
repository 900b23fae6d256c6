"""The formats that `tallyformer export --format` writes, and what each needs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

from tallyformer.errors import UsageError

WHOLE_NUMBERS: Mapping[str, int] = {"int8": 8, "int4": 4}
"""Bits of the matrices that our own engine reads as they are."""
EXTRA = "pip install 'tallyformer[export]'"


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        dtypes: of the stored matrices; the first is the default, None the source's own.
        packages: what writing and checking it needs beside TallyFormer's own dependencies.
    """

    dtypes: tuple[str | None, ...]
    packages: tuple[str, ...] = ()


FORMATS: Mapping[str, Format] = {
    "safetensors": Format((None, "float32", "bfloat16", "float16", *WHOLE_NUMBERS)),
    "onnx": Format(("float32", "int8"), ("onnx", "onnxruntime")),
    "gguf": Format(("bfloat16", "float32", "float16", "q8_0", "q4_0"), ("gguf",)),
    "ctranslate2": Format(("float32", "int8"), ("ctranslate2",)),
}


def all_dtypes() -> list[str]:
    """Every dtype that some format has, each once."""
    names = [name for form in FORMATS.values() for name in form.dtypes if name]
    return list(dict.fromkeys(names))


def check_format(name: str, dtype: str | None) -> str | None:
    """The dtype to write.

    Raises:
        UsageError: the format has no such dtype, or a package that it needs is not installed.
    """
    form = FORMATS[name]
    if dtype is not None and dtype not in form.dtypes:
        there = ", ".join(one for one in form.dtypes if one)
        raise UsageError(f"--dtype: {name} has no {dtype}. Use one of: {there}")
    missing = [package for package in form.packages if not importlib.util.find_spec(package)]
    if missing:
        raise UsageError(
            f"--format: {name} needs {' and '.join(missing)}, which this Python does not have. "
            f"Install: {EXTRA}"
        )
    return dtype or form.dtypes[0]
