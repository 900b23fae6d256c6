"""Work in several processes, with a bounded number of items under way.

Each process has a pipe of its own, so one that is killed can leave neither a lock taken nor a
queue half written: the parent sees its end and ends the others. `concurrent.futures` does not
promise this; before Python 3.11.5 it can wait for ever
(https://github.com/python/cpython/issues/94777).
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import multiprocessing
import os
import queue
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from tallyformer.errors import RunError
from tallyformer.interrupt import left_to_the_parent

Item = TypeVar("Item")
_UNDER_WAY = 2
"""Items a process: one that it works on, one that waits for it."""


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
        self._started: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def for_each(self, function: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[Item]:
        """Apply `function` to every item; yield each item when it is done, in any order.

        At most two items a process are in memory.

        Args:
            function: can be pickled; what it returns is dropped, what it raises is raised here.
            items: can be pickled; taken one by one, as processes become free.

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
        if not self._started:
            self._started = [_Worker() for _ in range(self._count)]
        try:
            yield from _bounded(self._started, function, items)
        finally:
            if any(worker.under_way for worker in self._started):
                self._end()

    def _end(self) -> None:
        for worker in self._started:
            worker.end()
        self._started = []


def _bounded(
    workers: Sequence[_Worker], function: Callable[[Item], Any], items: Iterable[Item]
) -> Iterator[Item]:
    for item in items:
        min(workers, key=lambda worker: len(worker.under_way)).give(function, item)
        if all(len(worker.under_way) >= _UNDER_WAY for worker in workers):
            yield from _finished(workers)
    while any(worker.under_way for worker in workers):
        yield from _finished(workers)


def _finished(workers: Sequence[_Worker]) -> Iterator[Any]:
    """Wait for at least one item."""
    ready = wait([worker.pipe for worker in workers])
    for worker in workers:
        if worker.pipe in ready:
            yield worker.take()


class _Worker:
    """A process, the parent's end of its pipe, and the items that it was given."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.under_way: collections.deque[Any] = collections.deque()
        self.pipe, end = context.Pipe()
        self._process = context.Process(target=_work, args=(end,), daemon=True)
        # Starting it unblocks SIGINT, so it must not be started inside the block.
        resource_tracker.ensure_running()
        with left_to_the_parent():
            self._process.start()
        end.close()

    def give(self, function: Callable[[Item], Any], item: Item) -> None:
        with _killed_is_an_error():
            self.pipe.send((function, item))
        self.under_way.append(item)

    def take(self) -> Any:
        """The item that was finished, once `pipe` is ready; raises what the function raised."""
        with _killed_is_an_error():
            error = self.pipe.recv()
        item = self.under_way.popleft()
        if error is not None:
            raise error
        return item

    def end(self) -> None:
        """End the process wherever it is; what it has not finished leaves no whole file."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


@contextlib.contextmanager
def _killed_is_an_error() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError):
        raise RunError(
            "a worker process was killed, perhaps for lack of memory. Lower "
            "prepare.workers, then resume with --resume; finished work is kept"
        ) from None


def _work(pipe: Connection) -> None:
    """Answer each (function, item) with None or the exception, until the parent is gone."""
    received: queue.SimpleQueue[tuple[Callable[[Any], Any], Any]] = queue.SimpleQueue()

    def receive() -> None:
        """Take items at once, so that the parent never waits to send them."""
        try:
            while True:
                received.put(pipe.recv())
        except (EOFError, ConnectionError):
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    threading.Thread(target=receive, daemon=True).start()
    while True:
        function, item = received.get()
        try:
            function(item)
        except Exception as error:
            error.add_note(f"In a worker process:\n{traceback.format_exc()}")
            pipe.send(error)
        else:
            pipe.send(None)
