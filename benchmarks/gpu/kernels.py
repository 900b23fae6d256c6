"""Where the time of a step goes, by torch's profiler: kernels by time, and shares by kind."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from measuring import wait
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

OTHER = "norm and elementwise"
KINDS = (
    ("attention", re.compile(r"flash|fmha|sdpa|attention|mha_", re.I)),
    # Inductor names a fused kernel by all operations in it, copies among them.
    (OTHER, re.compile(r"triton_(per|red|poi)_")),
    ("optimizer", re.compile(r"adam|multi_tensor_apply|foreach|muon", re.I)),
    (
        "matmul",
        re.compile(
            r"gemm|nvjet|cutlass|xmma|cublas|mkldnn|aten::(add|ba)?b?mm\b|triton_tem_", re.I
        ),
    ),
    ("copy", re.compile(r"memcpy|memset|copy_|_to_copy", re.I)),
)
"""By name, the first that fits; what fits none is norms, elementwise work and reductions too."""
STRETCHES = ("Optimizer.", "ProfilerStep", "Torch-Compiled Region", "## Call Compiled")
TOP = 20


class Kernel(NamedTuple):
    """A piece of work on the device: its name and when it ran, in microseconds."""

    name: str
    kind: str
    start: float
    end: float
    busy: float


def profiled(step: Callable[[], None], count: int, device: torch.device) -> dict[str, Any]:
    """Profile some steps.

    Returns:
        Shares of the wall time by kind, "idle" among them (on a GPU: no kernel runs; the profiler
        itself adds some), and the kernels that take most.
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    step()
    wait(device)
    with profile(activities=activities) as profiler:
        began = time.perf_counter()
        for _ in range(count):
            step()
        wait(device)
        wall = 1e6 * (time.perf_counter() - began)
    kernels = _kernels(list(profiler.events()), device)
    by_kind: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        by_kind[kernel.kind] += kernel.busy
    busy = _covered(kernels) if device.type == "cuda" else sum(by_kind.values())
    shares = {kind: spent / wall for kind, spent in by_kind.items()}
    return {
        "steps": count,
        "milliseconds_a_step": round(wall / 1000 / count, 3),
        "kernels_a_step": round(len(kernels) / count, 1),
        "shares": {**dict(sorted(shares.items())), "idle": max(0.0, 1 - busy / wall)},
        "top": _top(kernels, wall),
    }


def _kernels(events: list[Any], device: torch.device) -> list[Kernel]:
    on = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    here = [event for event in events if event.device_type == on]
    # Names that a program gives to a stretch of time lie over its kernels.
    stretches = [e for e in here if e.is_user_annotation or e.name.startswith(STRETCHES)]
    optimizer = [e.time_range for e in stretches if e.name.startswith("Optimizer.step")]
    names = {id(event) for event in stretches}
    found = []
    for event in here:
        if id(event) in names:
            continue
        span = event.time_range
        inside = any(o.start <= span.start and span.end <= o.end for o in optimizer)
        busy = span.elapsed_us() if device.type == "cuda" else event.self_cpu_time_total
        kind = "optimizer" if inside else kind_of(event.name)
        found.append(Kernel(event.name, kind, span.start, span.end, busy))
    return found


def kind_of(name: str) -> str:
    """The kind of work that a kernel's name tells."""
    return next((kind for kind, pattern in KINDS if pattern.search(name)), OTHER)


def _covered(kernels: Iterable[Kernel]) -> float:
    """Microseconds in which at least one kernel runs."""
    total = reached = 0.0
    for kernel in sorted(kernels, key=lambda kernel: kernel.start):
        total += max(0.0, kernel.end - max(kernel.start, reached))
        reached = max(reached, kernel.end)
    return total


def _top(kernels: list[Kernel], wall: float) -> list[dict[str, Any]]:
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for kernel in kernels:
        spent[kernel.name[:160], kernel.kind].append(kernel.busy)
    longest = sorted(spent.items(), key=lambda item: -sum(item[1]))[:TOP]
    return [
        {"name": name, "kind": kind, "calls": len(busy), "share": round(sum(busy) / wall, 4)}
        for (name, kind), busy in longest
    ]
