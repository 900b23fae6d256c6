"""Work in several processes, and what happens when one of them is killed."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tallyformer.data.workers import Workers
from tallyformer.errors import DataError, RunError


def _write_name(path: Path) -> None:
    path.write_text(path.name)


def _hold_out(folder: Path) -> None:
    """Say who works here, then end for no signal but SIGKILL."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / str(os.getpid())).touch()
    time.sleep(600)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_item_is_worked_on_once_whatever_the_number_of_processes(
    count: int, tmp_path: Path
) -> None:
    wanted = [tmp_path / str(i) for i in range(9)]
    with Workers(count) as workers:
        done = list(workers.for_each(_write_name, iter(wanted)))
    assert sorted(done) == sorted(wanted)
    assert [path.read_text() for path in wanted] == [path.name for path in wanted]


def _take_or_refuse(item: bytes) -> None:
    if item == b"bad":
        raise DataError("a bad item")


def test_what_the_function_raises_is_raised_here_and_the_workers_can_go_on() -> None:
    with Workers(2) as workers:
        with pytest.raises(DataError, match="a bad item") as caught:
            list(workers.for_each(_take_or_refuse, [b"good", b"bad", b"good", b"good"]))
        assert "_take_or_refuse" in "".join(caught.value.__notes__)
        assert len(list(workers.for_each(_take_or_refuse, [b"good"] * 9))) == 9


def test_items_larger_than_a_pipe_and_a_worker_killed_with_one_under_way(tmp_path: Path) -> None:
    def items() -> Iterator[bytes]:
        for number in itertools.count():
            if number == 20:
                multiprocessing.active_children()[0].kill()
            yield bytes(3_000_000)

    with pytest.raises(RunError, match="a worker process was killed"), Workers(2) as workers:
        done = 0
        for _ in workers.for_each(_take_or_refuse, items()):
            done += 1
    assert done >= 16
    assert not multiprocessing.active_children()


def test_a_killed_worker_ends_the_work_and_all_workers(tmp_path: Path) -> None:
    """Also those that no SIGTERM ends."""

    def items() -> Iterator[Path]:
        yield tmp_path
        yield tmp_path
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(min(int(path.name) for path in tmp_path.iterdir()), signal.SIGKILL)
        yield tmp_path

    with pytest.raises(RunError, match="a worker process was killed"), Workers(2) as workers:
        list(workers.for_each(_hold_out, items()))
    assert not [path for path in tmp_path.iterdir() if psutil.pid_exists(int(path.name))]
