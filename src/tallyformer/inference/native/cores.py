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
        own: the file that names this process's, "0::/PATH" or "1:cpu:/PATH" in a line.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    places = dict(line.split(":", 2)[1:] for line in lines if line.count(":") >= 2)
    for level in _levels(cgroups, places.get("", "/")):
        yield from _granted(level / "cpu.max")
    # The first version of cgroups; a container sees its own as the outermost.
    first = next((place for names, place in places.items() if "cpu" in names.split(",")), "/")
    for level in _levels(cgroups / "cpu", first):
        yield from _granted(level / "cpu.cfs_quota_us", level / "cpu.cfs_period_us")


def _levels(mounted: Path, place: str) -> Iterator[Path]:
    """A cgroup and those around it."""
    folder = mounted / place.lstrip("/")
    return (level for level in (folder, *folder.parents) if level.is_relative_to(mounted))


def _granted(*files: Path) -> Iterator[float]:
    try:
        words = " ".join(file.read_text(encoding="ascii") for file in files).split()
        given, period = (float(word) for word in words)
    except (OSError, ValueError):  # it is not there, or says "max"
        return
    if given > 0 and period > 0:
        yield given / period
