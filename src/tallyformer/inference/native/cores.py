"""How many threads are worth having."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that this process may use: by affinity, the cgroups' quotas and OMP_NUM_THREADS."""
    affinity = getattr(os, "sched_getaffinity", None)
    limits = [len(affinity(0)) if affinity else os.cpu_count() or 1]
    limits += [math.ceil(quota) for quota in quotas(_CGROUPS, _OWN)]
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal():
        limits.append(int(asked))
    return max(1, min(limits))


def quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Cores that this process's cgroup and those around it grant, where they limit them.

    Args:
        cgroups: where they are mounted.
        own: the file that names this process's, "0::/PATH" in a line.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    place = next((line[3:] for line in lines if line.startswith("0::/")), "/")
    folder = cgroups / place.lstrip("/")
    for level in (folder, *folder.parents):
        if level.is_relative_to(cgroups):
            yield from _granted(level / "cpu.max")
    # The first version of cgroups, as a container sees it.
    yield from _granted(cgroups / "cpu/cpu.cfs_quota_us", cgroups / "cpu/cpu.cfs_period_us")


def _granted(*files: Path) -> Iterator[float]:
    try:
        words = " ".join(file.read_text(encoding="ascii") for file in files).split()
        given, period = (float(word) for word in words)
    except (OSError, ValueError):  # it is not there, or says "max"
        return
    if given > 0 and period > 0:
        yield given / period
