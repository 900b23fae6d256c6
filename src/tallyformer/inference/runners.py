"""Which runner computes a folder's model, and why: `native` where it can, else `torch`.

a GPU, another kind of model, float16, no library ...  ──  torch
else                                                   ──  native, which loads no torch
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tallyformer.artifacts.model_folder import check_model_folder
from tallyformer.artifacts.paths import usable_path
from tallyformer.errors import ArtifactError, UsageError
from tallyformer.inference.native_model import library_problem, load_native, native_problem
from tallyformer.inference.ready_model import ReadyModel
from tallyformer.inference.runner_names import DTYPES, RUNNERS, RunnerName, known_dtypes
from tallyformer.model.device_here import may_have_gpu, named_device
from tallyformer.model.model_source import check_source
from tallyformer.packages import how_to_get, missing
from tallyformer.tokenizer.tokenizer import Tokenizer

_TORCH = ("torch", "transformers")
_NATIVE_ALONE = frozenset(DTYPES["native"]) - frozenset(DTYPES["torch"])
_FIX = "Export it again, or fetch it again"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChosenRunner:
    """A runner, and why it is the one.

    Attributes:
        name: which.
        why: in a few words.
        is_second_best: it computes slower than the other, which can be had.
    """

    name: RunnerName
    why: str
    is_second_best: bool = False


def load_ready(
    folder: str | Path,
    *,
    dtype: Any = None,
    device: Any = None,
    runner: str | None = None,
    batch_invariant: bool = False,
) -> tuple[ReadyModel, Tokenizer]:
    """A folder's model on the best runner for it, and its tokenizer.

    Args:
        folder: a Hugging Face folder with tokenizer files, or a name on the hub.
        dtype: of the weights; None keeps the folder's.
        device: None takes the best one.
        runner: None takes the best one.
        batch_invariant: the same bits whatever else is computed; native does so anyway.

    Raises:
        ArtifactError, CheckpointError, TokenizerError: the folder is missing or damaged, differs
            from the manifest that vouches for it, or needs packages that are not installed.
        UsageError: dtype, device or runner is unknown or not there, or they do not go together.
    """
    path = usable_path(folder)
    check_source(folder, revision=None, fix=_FIX)
    with ThreadPoolExecutor(1) as beside:
        # Checksums give up Python's lock, and the tokenizer is not what damage would harm.
        checked = beside.submit(check_model_folder, path)
        try:
            chosen = choose_runner(folder, dtype=dtype, device=device, runner=runner)
            tokenizer = Tokenizer.from_pretrained(folder)
        finally:
            checked.result()  # its error says more than what damage led to
    level = logging.WARNING if chosen.is_second_best else logging.INFO
    _log.log(level, "runner: %s (%s)", chosen.name, chosen.why)
    if chosen.name == "native":
        return load_native(path, tokenizer, dtype=dtype), tokenizer
    from tallyformer.inference.torch_model import load_with_torch  # loads torch and transformers

    ready = load_with_torch(
        folder, tokenizer, dtype=dtype, device=device, batch_invariant=batch_invariant
    )
    return ready, tokenizer


def choose_runner(
    folder: str | Path, *, dtype: Any = None, device: Any = None, runner: str | None = None
) -> ChosenRunner:
    """The runner asked for; without one, native if nothing is in its way.

    Args:
        folder: whose model; it is there, and its config.json can be read.
        dtype: as in `load_ready`, like the next two.
        device: see there.
        runner: see there.

    Raises:
        UsageError: the runner is unknown, or cannot compute what is asked.
        ArtifactError: native cannot, and torch is not installed.
    """
    if runner not in (None, *RUNNERS):
        raise UsageError(f"runner: {runner!r} is unknown. Use one of: {', '.join(RUNNERS)}")
    _check_dtype(dtype, runner)
    if runner == "torch":
        _check_torch(f"{folder}: runner 'torch'")
        return ChosenRunner("torch", "asked for")
    problem = next(_in_the_way(folder, dtype, device, runner), None)
    if problem is None and runner is None and _plain(dtype) not in _NATIVE_ALONE:
        problem = _better_device(device)
    lacking = None
    if problem is None:
        problem = lacking = library_problem()
    if problem is None:
        return ChosenRunner("native", "asked for" if runner else "the model and this CPU suit it")
    if runner == "native":
        raise UsageError(f"runner: native cannot compute {folder}: {problem}. Use 'torch'")
    if dtype is not None and _plain(dtype) not in DTYPES["torch"]:
        raise UsageError(
            f"dtype: {dtype!r} needs the native runner, which cannot compute {folder}: {problem}. "
            f"Use one of: {', '.join(DTYPES['torch'])}"
        )
    _check_torch(f"{folder}: cannot be computed without torch ({problem})")
    return ChosenRunner("torch", f"native cannot: {problem}", lacking is not None)


def _in_the_way(folder: str | Path, dtype: Any, device: Any, runner: str | None) -> Iterator[str]:
    """Why not native, the reason that is known soonest first."""
    named = named_device(device)
    if named is not None and named != "cpu":
        yield f"device {named}, and it computes on CPUs"
    if dtype is not None and _plain(dtype) not in DTYPES["native"]:
        yield f"dtype {dtype}"
    if not Path(folder).is_dir():
        yield "it is not a folder here"
    elif reason := _damage_or_reason(Path(folder), runner):
        yield reason


def _better_device(device: Any) -> str | None:
    """A GPU that is here, where none is named."""
    if named_device(device) is not None or not may_have_gpu() or missing(*_TORCH):
        return None
    from tallyformer.model.device import choose_device  # loads torch

    best = choose_device()
    return None if best.type == "cpu" else f"there is a GPU ({best})"


def _damage_or_reason(folder: Path, runner: str | None) -> str | None:
    """What `native_problem` says; damage counts as a reason where torch can say more of it."""
    try:
        return native_problem(folder)
    except ArtifactError as error:
        if runner == "native" or missing(*_TORCH):
            raise
        return str(error)


def _check_dtype(dtype: Any, runner: str | None) -> None:
    known = known_dtypes(runner)
    if isinstance(dtype, str) and dtype not in known:
        raise UsageError(f"dtype: {dtype!r} is unknown. Use one of: {', '.join(known)}")


def _plain(dtype: Any) -> str:
    """A dtype's name, torch's own without torch's."""
    return str(dtype).removeprefix("torch.")


def _check_torch(what: str) -> None:
    if lacking := missing(*_TORCH):
        raise ArtifactError(
            f"{what}: {lacking[0]} is not installed. Install it: {how_to_get(lacking[0])}"
        )
