"""Batches that are made while the device computes the step before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """What `make` gives by number; on a GPU a thread makes the next ones beforehand.

    A CPU computes with all its threads: one more would take its time from them.

    Args:
        make: the same number always gives the same.
        ahead: how many are made beforehand; 0 makes each when it is asked for.
    """

    def __init__(self, make: Callable[[int], T], *, ahead: int) -> None:
        self._make = make
        self._ahead = ahead
        self._ready: dict[int, Future[T]] = {}
        self._thread = ThreadPoolExecutor(1, "prefetch") if ahead else None

    def __call__(self, number: int) -> T:
        """The one of that number.

        Raises:
            Exception: what `make` raises, where that number is asked for.
        """
        if self._thread is None:
            return self._make(number)
        for next_one in range(number, number + self._ahead + 1):
            if next_one not in self._ready:
                self._ready[next_one] = self._thread.submit(self._make, next_one)
        for passed in [earlier for earlier in self._ready if earlier < number]:
            self._ready.pop(passed).cancel()
        return self._ready.pop(number).result()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the thread, after what it is at."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
