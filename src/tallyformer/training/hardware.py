"""What the machine is, what it can do at most, and how busy it is."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

GPU_PEAK_TFLOPS = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "GH200": 989.0,
    "H200": 989.0,
    "H200 NVL": 835.0,
    "H100": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "A100": 312.0,
    "A30": 165.0,
    "A40": 150.0,
    "A10": 125.0,
    "A10G": 70.0,
    "RTX A6000": 155.0,
    "RTX A5000": 111.0,
    "RTX A4000": 77.0,
    "RTX 6000 Ada": 364.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "V100": 125.0,
    "V100 PCIE": 112.0,
    "T4": 65.0,
    "RTX 5090": 210.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
"""Dense 16-bit matrix peak with float32 sums, by words of the device's name; makers' data sheets.
They print twice as much where they count sparse matrices."""
_OTHER_DEVICE = {"Ti", "SUPER", "D", "Laptop", "Mobile", "Max", "MIG"}
"""Words that make another device of the name before them: a variant, or a slice of it."""

_PROBED_SIZES = {"cpu": (256, 512, 1024), "cuda": (1024, 4096, 8192)}
"""Sides of the square products that are timed. Small ones are fastest on a quiet CPU, whose cache
holds them; on a busy one each waits for its last thread, and only a large one says anything."""
_PROBE_SECONDS = 0.05
"""For each size."""
_PEAK_SECONDS = 60.0
"""Between two measurements of the peak."""


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that count as 100%.

    A GPU of the table: its 16-bit peak. Any other device: what matrix products reach now, which
    takes about two tenths of a second. A machine that does other work meanwhile reaches less, so
    see `Peak`.
    """
    if device.type == "cuda":
        tera = gpu_peak_tflops(torch.cuda.get_device_name(device))
        if tera is not None and dtype != torch.float32:
            return tera * 1e12
    return _measured_flops(device, dtype)


def gpu_peak_tflops(name: str) -> float | None:
    """The table's figure for a device name as the driver gives it; None for any other device.

    The entry all of whose words stand in the name, the longest where there are several.
    """
    words = set(re.findall(r"[A-Za-z0-9]+", name))
    entries = [entry for entry in GPU_PEAK_TFLOPS if words.issuperset(entry.split())]
    if not entries or words & _OTHER_DEVICE:
        return None
    return GPU_PEAK_TFLOPS[max(entries, key=lambda entry: len(entry.split()))]


def _measured_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The best rate that square products of several sizes reach."""
    sizes = _PROBED_SIZES.get(device.type, _PROBED_SIZES["cpu"])
    return max(2 * size**3 / _least_seconds(size, device, dtype) for size in sizes)


def _least_seconds(size: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b = torch.full((2, size, size), 0.5, device=device, dtype=dtype)
    least = min(_seconds_of_product(a, b) for _ in range(2))
    stop = time.perf_counter() + _PROBE_SECONDS
    while time.perf_counter() < stop:
        least = min(least, _seconds_of_product(a, b))
    return least


def _seconds_of_product(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    (a @ b)[0, 0].item()
    return time.perf_counter() - start


class Peak:
    """The FLOP/s that count as 100%: the best that the device has been seen to reach.

    One measurement is too low where other programs disturb it, by a factor of 100 on a busy CPU.
    So it is measured again now and then, and what the training itself reaches counts too: no share
    is above 1.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._device = device
        self._dtype = dtype
        self._clock = clock
        self.flops = 0.0
        self._measure()

    def _measure(self) -> None:
        self.flops = max(self.flops, peak_flops(self._device, self._dtype))
        self._measured_at = self._clock()

    def look(self) -> None:
        """Measure again, if the last time was over a minute ago, and keep the higher figure."""
        if self._clock() - self._measured_at > _PEAK_SECONDS:
            self._measure()

    def share(self, flops: float) -> float:
        """The part of the peak that a rate is; a higher rate raises the peak first."""
        self.flops = max(self.flops, flops)
        return flops / self.flops


class Usage:
    """Load of the machine since the last look. All values are None where they are unknown."""

    def __init__(self, device: torch.device):
        self._device = device
        self._process = psutil.Process()
        psutil.cpu_percent()

    def look(self) -> dict[str, float | None]:
        """CPU and GPU load in percent, and memory in MB (10^6 bytes)."""
        on_gpu = self._device.type == "cuda"
        return {
            "cpu_percent": psutil.cpu_percent(),
            "memory_mb": round(self._process.memory_info().rss / 1e6, 1),
            "gpu_percent": _gpu_percent(self._device) if on_gpu else None,
            "gpu_memory_mb": peak_gpu_mb(self._device),
        }


def _gpu_percent(device: torch.device) -> float | None:
    try:
        return float(torch.cuda.utilization(device))
    # The driver's library has errors of its own (a slice of a GPU, for example, has no load), and
    # a run does not end for lack of this number.
    except Exception:
        return None


def start_gpu_peak(device: torch.device) -> None:
    """Let `peak_gpu_mb` count from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gpu_mb(device: torch.device) -> float | None:
    """The largest sum of this process's tensors on a GPU in MB (10^6 bytes); None for a CPU."""
    if device.type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)


class PeakMemory:
    """The largest resident memory of this process from now on."""

    def __init__(self) -> None:
        reset = Path("/proc/self/clear_refs")
        try:
            reset.write_text("5", encoding="ascii")
            self._since_now = True
        except OSError:
            self._since_now = False

    def megabytes(self) -> float:
        """In MB (10^6 bytes); of the process's whole life where the system keeps no other."""
        if self._since_now:
            status = Path("/proc/self/status").read_text(encoding="ascii")
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
