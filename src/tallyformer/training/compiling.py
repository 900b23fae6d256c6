"""When and what torch.compile compiles: the blocks, which share one graph, and the loss of a chunk.

Compiling costs about a minute on two CPU cores, so "auto" leaves short runs alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import torch
from torch.utils._triton import has_triton

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
    if wanted == "on":
        require_compiler(device, "compile: on", "or set compile: auto")
    if wanted != "auto":
        return wanted == "on"
    return compiler_works(device) and run_flops > _WORTH_IT_FLOPS.get(device.type, float("inf"))


class Tool(NamedTuple):
    """Something that torch.compile needs, and how to get it."""

    name: str
    fix: str


def missing_tools(device: torch.device, headers: Path | None = None) -> list[Tool]:
    """What torch.compile needs for this device and does not find.

    On a CPU the kernels are C++, and Python calls them through a module that includes Python.h.
    On a GPU Triton makes the kernels, and a module in C that starts them. Both look for their
    compilers as this function does.

    Args:
        headers: folder of Python.h; by default this Python's.
    """
    missing = []
    if device.type == "cuda":
        if not has_triton():
            fix = "it comes with torch for CUDA, and needs a GPU of compute capability 7.0 or above"
            missing.append(Tool("Triton", fix))
        language, variable, usual = "C", "CC", ["gcc", "clang"]
    else:
        language, variable = "C++", "CXX"
        usual = ["clang++" if sys.platform == "darwin" else "g++"]
    chosen = os.environ.get(variable)
    if not any(map(shutil.which, usual if chosen is None else [chosen])):
        fix = "on Debian: sudo apt install g++"
        if chosen is not None:
            fix = f"${variable} is {chosen!r}, which is not there"
        missing.append(Tool(f"a {language} compiler", fix))
    if not ((headers or Path(sysconfig.get_path("include"))) / "Python.h").is_file():
        missing.append(Tool("Python.h", "on Debian: sudo apt install python3-dev"))
    return missing


def compiler_works(device: torch.device) -> bool:
    """True if the tools torch.compile needs for this device are installed."""
    return not missing_tools(device)


def require_compiler(device: torch.device, who: str, otherwise: str) -> None:
    """Check that torch.compile can be used.

    Args:
        who: needs it.
        otherwise: what to do instead.

    Raises:
        TrainingError: a tool is missing.
    """
    if missing := missing_tools(device):
        tools = ", ".join(f"{tool.name} ({tool.fix})" for tool in missing)
        raise TrainingError(f"{who} needs what torch.compile needs: {tools}. Get it, {otherwise}")


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


def uncompile_blocks(model: Any) -> None:
    """Undo `compile_blocks`, for which torch has no call of its own."""
    for block in model.model.blocks:
        block._compiled_call_impl = None


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
