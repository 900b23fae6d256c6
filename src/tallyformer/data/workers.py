"""Work in several processes, with a bounded number of pieces under way."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tallyformer.errors import RunError

Item = TypeVar("Item")
_UNDER_WAY = 2
"""Pieces a process: one that it works on, one that waits for it."""


def worker_count(wanted: int) -> int:
    """`wanted`, or for 0 the number of cores that this process may use."""
    if wanted:
        return wanted
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Workers:
    """A number of processes that apply one function to many items. A context manager.

    The processes start with the second item, so little work needs none. When this process dies,
    they die too.

    Args:
        count: number of processes; with 1 everything runs in this process.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def for_each(self, function: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[Item]:
        """Apply `function` to every item; yield each item when it is done, in any order.

        At most two items a process are in memory.

        Args:
            function: can be pickled; what it returns is dropped, what it raises is raised here.
            items: taken one by one, as processes become free.

        Raises:
            RunError: a process was killed.
        """
        iterator = iter(items)
        ahead = list(itertools.islice(iterator, 2))
        items = itertools.chain(ahead, iterator)
        if self._count == 1 or len(ahead) < 2:
            for item in items:
                function(item)
                yield item
            return
        try:
            yield from _bounded(self._started(), function, items, self._count * _UNDER_WAY)
        except BrokenProcessPool:
            _kill_children()
            raise RunError(
                "a worker process was killed, perhaps for want of memory. Lower "
                "prepare.workers, then go on with --resume; finished work is kept"
            ) from None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._count, mp_context=context, initializer=_begin_worker
            )
        return self._pool


def _bounded(
    pool: ProcessPoolExecutor,
    function: Callable[[Item], Any],
    items: Iterable[Item],
    under_way: int,
) -> Iterator[Item]:
    pending: dict[Future[Any], Item] = {}
    for item in items:
        pending[pool.submit(function, item)] = item
        if len(pending) >= under_way:
            yield from _finished(pending)
    while pending:
        yield from _finished(pending)


def _finished(pending: dict[Future[Any], Item]) -> Iterator[Item]:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        item = pending.pop(future)
        future.result()
        yield item


def _kill_children() -> None:
    """End what is left of a broken pool: a process that was just starting is not ended by it."""
    for child in multiprocessing.active_children():
        child.kill()


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
