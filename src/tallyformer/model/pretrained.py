"""What every load and save of a Hugging Face folder needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.utils import logging as transformers_logging

_SHOWN = 3
"""Most tensors that a message names."""
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def check_complete(report: Mapping[str, Any], folder: str | Path, *, exactly: bool = False) -> None:
    """Refuse weights that are not those of the configuration.

    transformers would fill a tensor that is missing or of another shape with random numbers, and
    cast whole numbers to floats.

    Args:
        report: what `from_pretrained(folder, **REPORTED)` says.
        folder: what was loaded.
        exactly: refuse tensors that the model has no place for, and such that are not floats, too.
            Folders of other projects may hold some.

    Raises:
        ValueError: a tensor is missing, has another shape or type, or has no place.
    """
    _refuse("missing", report["missing_keys"])
    _refuse(
        "of another shape than config.json says",
        [
            f"{name} {_shape(found)}, not {_shape(wanted)}"
            for name, found, wanted in report["mismatched_keys"]
        ],
    )
    if exactly:
        _refuse("unknown to the model", report["unexpected_keys"])
        _refuse("no floating-point numbers", _other_types(Path(folder)))


def _refuse(what: str, names: Iterable[str]) -> None:
    found = sorted(names)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ValueError(f"tensors that are {what}: {', '.join(found[:_SHOWN])}{more}")


def _shape(shape: Any) -> str:
    return " x ".join(str(size) for size in shape) or "one number"


def _other_types(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is not a mapping
                kind = file.get_slice(name).get_dtype()
                if kind not in _FLOATS:
                    yield f"{name} {kind}"


REPORTED: Mapping[str, bool] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Arguments of `from_pretrained` that leave it to `check_complete` to refuse weights.

transformers itself refuses wrong shapes with a look at a table that `quiet_library` hides.
"""


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Keep transformers' bars and tables of tensors out of what the user sees.

    `check_complete` says in one line what such a table would.
    """
    bars = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
