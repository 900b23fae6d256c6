"""When and what torch.compile compiles: the blocks, which share one graph, and the loss of a chunk.

Compiling costs about a minute on two CPU cores, so "auto" leaves short runs alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import torch

from tallyformer.errors import TrainingError

P = ParamSpec("P")
R = TypeVar("R")

_WORTH_IT_FLOPS = {"cpu": 1e14, "cuda": 3e16}
"""About five minutes of two CPU cores, and a few minutes of one data-centre GPU."""


def wants_compile(
    wanted: Literal["auto", "on", "off"], device: torch.device, run_flops: float
) -> bool:
    """Whether to compile.

    Decided from the amount of work, not from a timing, so that a resumed run decides alike and
    computes the same bits.

    Raises:
        TrainingError: "on", but the tools for it are missing.
    """
    if wanted == "on" and not compiler_works(device):
        raise TrainingError(
            f"compile: on needs a C++ compiler{' and Triton' * (device.type == 'cuda')}. "
            "Install g++, or set compile: auto"
        )
    if wanted != "auto":
        return wanted == "on"
    return compiler_works(device) and run_flops > _WORTH_IT_FLOPS.get(device.type, float("inf"))


def compiler_works(device: torch.device) -> bool:
    """True if the tools torch.compile needs for this device are installed."""
    if device.type == "cpu":
        return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    return device.type == "cuda" and torch.utils._triton.has_triton()


def forget_compiled() -> None:
    """Drop all compiled code of this process.

    What an earlier run of the process has compiled, and for which shapes, decides what a later one
    gets; a run that is resumed in a new process must get the same.
    """
    torch.compiler.reset()


def compile_blocks(model: Any) -> None:
    """Compile each transformer block in place; equal blocks compile once."""
    for block in model.model.blocks:
        block.compile()


def compiled_by_rows(function: Callable[P, R], compiled: bool) -> Callable[P, R]:
    """`function`, compiled if asked for, in one version for any number of rows of its tensors.

    The number of labelled positions changes from batch to batch. A version for each would cost a
    minute each time, and a resumed run would compile others than one that was not stopped.
    """
    if not compiled:
        return function
    fused = torch.compile(function)

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for value in args:
            if isinstance(value, torch.Tensor):
                torch._dynamo.maybe_mark_dynamic(value, 0)
        return fused(*args, **kwargs)

    return call
