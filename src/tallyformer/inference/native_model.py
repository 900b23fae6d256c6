"""Models that the native runner computes, ready to answer. Loads no torch."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tallyformer.artifacts.json_files import read_json
from tallyformer.inference.folder_defaults import end_ids, read_settings, sampling_defaults
from tallyformer.inference.native.available import available
from tallyformer.inference.native.build import (
    BuildError,
    failed_before,
    find_compiler,
    is_built,
)
from tallyformer.inference.native.runner import NativeRunner
from tallyformer.inference.ready_model import ReadyModel, check_tokenizer
from tallyformer.model.config_fields import UnsupportedModelError
from tallyformer.model.model_source import CONFIG
from tallyformer.model.shape import shape_of
from tallyformer.model.weights import FolderWeights
from tallyformer.tokenizer.tokenizer import Tokenizer

_log = logging.getLogger(__name__)
_FIX = "Export it again, or fetch it again"


def native_problem(folder: Path) -> str | None:
    """Why no native runner can compute a folder's model; None if `library_problem` knows none.

    Raises:
        ArtifactError, CheckpointError: the folder is damaged.
    """
    try:
        weights = _weights(folder, read_json(folder / CONFIG, fix=_FIX))
    except UnsupportedModelError as reason:
        return str(reason)
    if weights.unneeded:
        return f"the model has no place for the tensor {weights.unneeded[0]}"
    return None


def library_problem() -> str | None:
    """Why the native library cannot be used here, and what helps; None if it can.

    It is built if it never was.
    """
    try:
        if not is_built():
            if reason := failed_before():
                return reason
            compiler = " ".join(find_compiler())
            _log.warning("building the native library with %s; a minute at most, once", compiler)
    except BuildError as error:
        return str(error)
    return available()


def load_native(folder: Path, tokenizer: Tokenizer, *, dtype: Any = None) -> ReadyModel:
    """Load a folder for which `native_problem` knows none.

    Args:
        folder: a model's.
        tokenizer: its own.
        dtype: of the weights; None keeps the folder's.

    Raises:
        ArtifactError, CheckpointError, TokenizerError: it is damaged, or does not fit its
            tokenizer.
        MemoryError: the weights do not fit.
    """
    config = read_json(folder / CONFIG, fix=_FIX)
    shape = shape_of(config)
    check_tokenizer(tokenizer, shape.vocab, str(folder))
    settings = read_settings(folder)
    weights = _weights(folder, config)
    kind = str(dtype or weights.dtype).removeprefix("torch.")
    defaults = sampling_defaults(settings, folder)
    _give_back_memory()
    return ReadyModel(
        runner=NativeRunner(shape, weights, dtype=kind, vocab_size=tokenizer.vocab_size),
        runner_name="native",
        source=str(folder),
        device="cpu",
        dtype=kind,
        context=shape.context,
        eos_ids=end_ids(settings, shape.eos_ids),
        default_params=defaults,
    )


def _weights(folder: Path, config: Mapping[str, Any]) -> FolderWeights:
    return FolderWeights(folder, config, shape_of(config), fix=_FIX)


def _give_back_memory() -> None:
    """Let the system have what reading a tokenizer took: 30 MB with GPT-2's vocabulary.

    glibc keeps it, and the weights, which come next, do not fit into it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
