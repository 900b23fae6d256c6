"""What this machine can do for a run, what is missing, and how to get it. Changes nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from tallyformer.errors import UsageError
from tallyformer.inference.native.cores import usable_cores
from tallyformer.packages import how_to_get, missing

if TYPE_CHECKING:
    import torch

REQUIRED_PYTHON = (3, 11)
NEEDED = ("numpy", "tokenizers")
"""By everything."""
OF_TRAINING = ("torch", "transformers", "tiktoken", "peft", "pyarrow")
LEAST_MEMORY_GB = 4.0
LEAST_DISK_GB = 5.0
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        name: what was looked at.
        value: what was found.
        state: "ok"; "limited": works, with less speed or fewer inputs; "missing": a run will fail.
        fix: how to get what is missing; "" if nothing is.
    """

    name: str
    value: str
    state: Literal["ok", "limited", "missing"] = "ok"
    fix: str = ""


def examine(folder: Path, *, hub_seconds: float = 3.0) -> Iterator[Finding]:
    """Look at this machine.

    Args:
        folder: where runs would be written.
        hub_seconds: how long the Hugging Face hub is waited for.
    """
    yield _python()
    yield from _packages()
    yield _processor()
    yield _memory()
    yield _disk(folder)
    yield _native()
    if importlib.util.find_spec("torch"):
        yield from _torch()
    yield _hub(hub_seconds)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info >= REQUIRED_PYTHON:
        return Finding("python", f"{version} on {platform.system()} {platform.machine()}")
    least = ".".join(map(str, REQUIRED_PYTHON))
    return Finding("python", version, "missing", f"install Python {least} or newer")


def _packages() -> Iterator[Finding]:
    for name in NEEDED:
        yield _package(name, "missing", "pip install tallyformer")
    for name in OF_TRAINING:
        yield _package(name, "limited", f"for training and for GPUs: {how_to_get(name)}")
    fix = f"only for data sets of the hub: {how_to_get('datasets')}"
    yield _package("datasets", "limited", fix)


def _package(name: str, without: Literal["limited", "missing"], fix: str) -> Finding:
    version = _version(name)
    return Finding(name, version) if version else Finding(name, "not installed", without, fix)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> Finding:
    return Finding("cores", f"{usable_cores()} usable")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    total = min(memory.total, _container_limit() or memory.total) / 1e9
    value = f"{total:.1f} GB, {memory.available / 1e9:.1f} GB free"
    if total >= LEAST_MEMORY_GB:
        return Finding("memory", value)
    fix = f"the quickstart needs {LEAST_MEMORY_GB:g} GB; lower micro_batch in the recipe"
    return Finding("memory", value, "limited", fix)


def _container_limit() -> int | None:
    """Bytes that this process's control group may use, if it is limited."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _disk(folder: Path) -> Finding:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    if not os.access(place, os.W_OK):
        fix = "choose another --out, or allow writing there"
        return Finding("disk", f"{place} cannot be written", "missing", fix)
    if free >= LEAST_DISK_GB:
        return Finding("disk", f"{free:.0f} GB free in {place}")
    fix = "free space, or choose another --out"
    return Finding("disk", f"{free:.1f} GB free in {place}", "limited", fix)


def _native() -> Finding:
    """What answers on this CPU."""
    from tallyformer.inference.native.available import available, kernels
    from tallyformer.inference.native.build import (
        BuildError,
        failed_before,
        find_compiler,
        is_built,
    )

    try:
        built = is_built()
        reason = None if built else failed_before()
        if not built and reason is None:
            compiler = " ".join(find_compiler())
            return Finding("native runner", f"is built at its first use, once, by {compiler}")
    except BuildError as error:
        reason = str(error)
    if reason := reason or available():
        if missing("torch"):
            nothing = "not here, nor is torch: nothing answers"
            return Finding("native runner", nothing, "missing", reason)
        return Finding("native runner", "not here: torch answers, slower", "limited", reason)
    return Finding("native runner", f"answers on this CPU; kernels: {kernels()}")


def _torch() -> Iterator[Finding]:
    import torch

    from tallyformer.training.precision import choose_precision

    capable = torch.cpu.get_capabilities()
    names = {"avx2": "AVX2", "avx512_f": "AVX-512", "avx512_bf16": "AVX-512 BF16"}
    names |= {"amx_tile": "AMX", "amx_bf16": "AMX BF16", "bf16": "BF16"}
    found = [label for key, label in names.items() if capable.get(key)]
    precision = choose_precision("auto", torch.device("cpu")).name
    yield Finding(
        "CPU arithmetic", f"{', '.join(found) or 'plain'}; precision: auto means {precision}"
    )
    yield from _device()
    if not torch.cuda.is_available():
        yield Finding("GPU", "no CUDA GPU", "limited", _gpu_fix(torch.version.cuda is not None))
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        precision = choose_precision("auto", torch.device("cuda", index)).name
        yield Finding(
            f"GPU {index}",
            f"{properties.name}, {properties.total_memory / 1e9:.0f} GB; "
            f"precision: auto means {precision}",
        )


def _device() -> Iterator[Finding]:
    """What trains and answers here, and whether its code can be compiled."""
    from tallyformer.model.device import choose_device
    from tallyformer.model.device_here import VARIABLE

    try:
        device = choose_device()
    except UsageError as error:
        yield Finding("device", str(error), "missing", f"unset {VARIABLE}")
        return
    chosen = f"{device}, which trains and answers ({VARIABLE} names another)"
    if device.type == "mps":
        fix = f"if something fails: export {VARIABLE}=cpu"
        yield Finding("device", f"{chosen}; nothing has been tested on it", "limited", fix)
    else:
        yield Finding("device", chosen)
    yield _compiler(device)


def _compiler(device: torch.device) -> Finding:
    from tallyformer.training.compiling import missing_tools

    lacking = missing_tools(device)
    if not lacking:
        return Finding("torch.compile", f"works, so long runs on this {device.type} are faster")
    value = f"lacks {', '.join(tool.name for tool in lacking)}"
    fixes = "; ".join(f"{tool.name}: {tool.fix}" for tool in lacking)
    return Finding("torch.compile", value, "limited", f"training works without, slower. {fixes}")


def _gpu_fix(built_for_cuda: bool) -> str:
    if shutil.which("nvidia-smi") and not built_for_cuda:
        return "there is an NVIDIA driver, but this torch is built for the CPU: install a CUDA one"
    return "the flagship recipe wants one; quickstart.yaml and real-cpu.yaml do not"


def _hub(seconds: float) -> Finding:
    """Ask the hub in a thread, because a name look-up can hang longer than any timeout."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return Finding("hub", "switched off by HF_HUB_OFFLINE", "limited", _HUB_FIX)
    address = os.environ.get("HF_ENDPOINT", HUB)
    answers: list[str] = []
    thread = threading.Thread(target=_ask, args=(address, seconds, answers), daemon=True)
    thread.start()
    thread.join(seconds)
    if answers and not answers[0]:
        return Finding("hub", f"{address} answers")
    reason = answers[0] if answers else f"no answer within {seconds:g} s"
    return Finding("hub", f"{address} cannot be reached ({reason})", "limited", _HUB_FIX)


_HUB_FIX = "only for hub names in a recipe: download them elsewhere and give local folders"


def _ask(address: str, seconds: float, answers: list[str]) -> None:
    """Append "" if the address answers at all, else the reason."""
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=seconds):
            answers.append("")
    except urllib.error.HTTPError:
        answers.append("")
    except (OSError, ValueError) as error:
        answers.append(" ".join(str(getattr(error, "reason", error)).split()))
