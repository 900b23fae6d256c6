"""Signals and blocks that they must not cut in two."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tallyformer.interrupt import STOP_SIGNALS, Stopped, left_to_the_parent, stop_on_signals


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_another_thread_takes_is_answered_after_the_start_of_a_child(
    number: signal.Signals,
) -> None:
    """The block's mask is one thread's alone, and a process has others: progress bars, readers."""
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    reached = False
    try:
        with pytest.raises(Stopped) as stopped, stop_on_signals():
            with left_to_the_parent():
                os.kill(os.getpid(), number)
                for _ in range(20):  # time for the handler, which runs in this thread
                    time.sleep(0.005)
                reached = True
            pytest.fail("the signal was lost")
        assert reached and stopped.value.signal_number == number
    finally:
        end.set()
        other.join()
