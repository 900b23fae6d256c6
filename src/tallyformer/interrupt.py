"""SIGINT, SIGTERM and SIGHUP: an exception at once, or a question that the training loop asks."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_REQUEST = 1.0
"""Seconds in which a further signal is the same request: `timeout` sends two, a closed terminal
SIGHUP from the shell and from the kernel."""


class Stopped(BaseException):
    """The process was asked to stop. As with KeyboardInterrupt, no `except Exception` hides it."""

    def __init__(self, signal_number: int):
        super().__init__(f"stopped by {signal_name(signal_number)}")
        self.signal_number = signal_number


def signal_name(number: int) -> str:
    """`Ctrl-C` for SIGINT, else the signal's name."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class Interruption:
    """Whether the process was asked to stop; `signal_number` is None until then."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._began = 0.0

    def notice(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. A second Ctrl-C stops at once, as it would without this class."""
        if self.signal_number is None:
            self.signal_number, self._began = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._began > _SAME_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextlib.contextmanager
def watch_signals() -> Iterator[Interruption]:
    """Note a signal inside the block; the block ends soon, and in order.

    A signal that the block has not answered with an exception is sent again when it ends, so that
    none is lost.
    """
    interruption = Interruption()
    with _handled_by(interruption.notice):
        yield interruption
    if interruption.signal_number is not None:
        signal.raise_signal(interruption.signal_number)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Stopped` inside the block when a signal comes, wherever the program is.

    A further signal within a second is taken for the same request, so that it does not disturb
    the clearing away; a later one raises again, in case that the first exception was lost in a
    library's callback.
    """
    last = [float("-inf")]

    def stop(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - last[0] > _SAME_REQUEST:
            last[0] = now
            raise Stopped(number)

    with _handled_by(stop):
        yield


@contextlib.contextmanager
def left_to_the_parent() -> Iterator[None]:
    """Processes that are started inside the block never see the signals.

    Ctrl-C and a closed terminal reach every process of a group. The parent alone answers, when the
    block has ended, and ends its children; one that answers too would print a traceback of its own.
    """
    noted: list[int] = []
    try:
        # The mask, which children inherit, is this thread's alone: another thread may take a signal
        # that then would raise here, with a child half started.
        with _handled_by(lambda number, frame: noted.append(number)):
            before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            try:
                yield
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        for number in dict.fromkeys(noted):
            signal.raise_signal(number)


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals inside the block (in the main thread; Python allows no other).

    An ignored SIGHUP stays ignored: that is how `nohup` keeps a process alive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old: dict[int, Any] = {
        number: signal.signal(number, handler)
        for number in STOP_SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)
