"""The end of a server, in order and in time: what runs gets its grace, and nothing gets more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from tallyformer.server.drain import Drain

TOLD_SECONDS = 0.75
"""After the grace: for clients to read that their answer ends here."""
LAST_SECONDS = 1.5
"""After the grace: until the process is gone, whatever still waits for a disk or a database."""


class TimedEnd:
    """Ends the process when its time is over, from a thread that waits for nothing else.

    Args:
        exit_process: called in that thread; it does not return.
    """

    def __init__(self, exit_process: Callable[[], Any] = lambda: os._exit(0)) -> None:
        self._exit_process = exit_process
        self._timers: list[threading.Timer] = []

    def after(self, seconds: float) -> None:
        """End it after so many seconds, or sooner if that was said before."""
        timer = threading.Timer(seconds, self._exit_process)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    @contextlib.contextmanager
    def until_here(self) -> Iterator[None]:
        """What the block does is what may take too long."""
        try:
            yield
        finally:
            for timer in self._timers:
                timer.cancel()


async def ended(
    server: uvicorn.Server,
    serving: asyncio.Task[None],
    drain: Drain,
    *,
    grace: float,
    hurry: asyncio.Task[Any],
) -> None:
    """End a server: running answers get the grace, and so does what is written and not read yet.

    Args:
        server: serves in `serving`.
        drain: no new requests are taken already.
        grace: seconds.
        hurry: done when the grace is over early.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + grace
    idle = asyncio.create_task(drain.until_idle(grace))
    await asyncio.wait([serving, idle, hurry], return_when=asyncio.FIRST_COMPLETED)
    drain.expire()
    await drain.until_idle(TOLD_SECONDS)
    idle.cancel()
    # It waits for all connections; those that are too slow are closed here.
    server.config.timeout_graceful_shutdown = None
    server.should_exit = True
    left = max(0.0, deadline + TOLD_SECONDS - clock())
    await asyncio.wait([serving, hurry], timeout=left, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await _cut_off(server)
    await serving


async def _cut_off(server: uvicorn.Server) -> None:
    """Close all connections without a word more; what runs for them notices, or is cancelled."""
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await asyncio.sleep(0.1)
    for task in server.server_state.tasks:
        task.cancel()
