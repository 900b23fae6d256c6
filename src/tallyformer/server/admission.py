"""A bounded queue: who may wait, and when those come back who may not."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from tallyformer.server.api_error import ApiError

_WEIGHT = 0.1
"""Of the newest service time in the running mean."""


class Admission:
    """How many answers a model has in work; more than it has places for wait, a bounded number.

    Args:
        slots: answers that run at once.
        most_waiting: answers that may wait besides.
        clock: seconds that never go back.
    """

    def __init__(
        self, slots: int, most_waiting: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slots = slots
        self._most = slots + most_waiting
        self._clock = clock
        self._service_seconds = 1.0
        self.in_work = 0

    @contextlib.contextmanager
    def admitted(self, answers: int) -> Iterator[None]:
        """A place for some answers, given back at the end of the block.

        Raises:
            ApiError: 429, too many wait; it says when to come again.
        """
        self.check(answers)
        began = self._clock()
        self.in_work += answers
        try:
            yield
        finally:
            self.in_work -= answers
            self._service_seconds += _WEIGHT * (self._clock() - began - self._service_seconds)

    def check(self, answers: int) -> None:
        """Refuse what `admitted` would refuse, before any work is done for it.

        Raises:
            ApiError: 429, as `admitted`.
        """
        if self.in_work and self.in_work + answers > self._most:
            raise self._full(answers)

    def retry_after(self, answers: int) -> int:
        """Seconds until so many have left that there will be room, at the measured rate."""
        leaving = max(1, self.in_work + answers - self._most)
        return max(1, math.ceil(leaving / self._slots * self._service_seconds))

    def _full(self, answers: int) -> ApiError:
        return ApiError(
            429,
            "Too many requests wait. Send this again after the seconds in Retry-After",
            code="queue_full",
            headers={"Retry-After": str(self.retry_after(answers))},
        )
