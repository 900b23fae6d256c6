"""Threads follow what the process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tallyformer.inference.native.cores import quotas, usable_cores


def test_threads_follow_affinity_and_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    for asked, cores in (("1", 1), ("0", 1), ("many", usable_cores())):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert usable_cores() == cores


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="ascii")


def test_every_cgroup_around_the_process_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/x\n0::/system.slice/tally.service\n", encoding="ascii")
    mounted = tmp_path / "cgroup"
    _write(mounted / "system.slice/tally.service/cpu.max", "max 100000\n")
    assert list(quotas(mounted, own)) == []
    _write(mounted / "system.slice/cpu.max", "150000 100000\n")
    _write(mounted / "cpu.max", "400000 100000\n")
    assert list(quotas(mounted, own)) == [1.5, 4.0]
    _write(mounted / "cpu/cpu.cfs_quota_us", "50000\n")
    _write(mounted / "cpu/cpu.cfs_period_us", "100000\n")
    assert list(quotas(mounted, own)) == [1.5, 4.0, 0.5]
    _write(mounted / "cpu/cpu.cfs_quota_us", "-1\n")
    assert list(quotas(mounted, own)) == [1.5, 4.0]


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_every_cgroup_of_the_first_version_counts(tmp_path: Path, controllers: str) -> None:
    own = tmp_path / "own"
    own.write_text(f"3:cpuset:/y\n1:{controllers}:/a/b\n0::/\n", encoding="ascii")
    mounted = tmp_path / "cgroup"
    for place, quota in (("cpu/a/b", "50000"), ("cpu/a", "-1"), ("cpu", "300000")):
        _write(mounted / place / "cpu.cfs_quota_us", f"{quota}\n")
        _write(mounted / place / "cpu.cfs_period_us", "100000\n")
    assert list(quotas(mounted, own)) == [0.5, 3.0]


def test_what_cannot_be_read_limits_nothing(tmp_path: Path) -> None:
    assert list(quotas(tmp_path, tmp_path / "missing")) == []
    own = tmp_path / "own"
    own.write_text("0::/\n", encoding="ascii")
    _write(tmp_path / "cpu.max", "what is this\n")
    assert list(quotas(tmp_path, own)) == []
