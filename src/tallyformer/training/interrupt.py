"""SIGINT and SIGTERM as a question that the loop asks, instead of an exception anywhere."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interruption:
    """Whether the process was asked to stop; `signal_number` is None until then."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def notice(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. A second signal stops at once, as it would without this class."""
        if self.signal_number is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal_number = number


@contextlib.contextmanager
def watch_signals() -> Iterator[Interruption]:
    """Catch SIGINT and SIGTERM inside the block (in the main thread; Python allows no other)."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    old = {
        number: signal.signal(number, interruption.notice)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield interruption
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
