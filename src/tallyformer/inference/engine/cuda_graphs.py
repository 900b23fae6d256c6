"""Work that is the same every time, recorded once as a CUDA graph and started by one launch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable
from typing import Any

import torch

_WARM_UPS = 2
_RUNS_WITHOUT = 1000
"""How often work that lacked memory is done without a graph before it is tried again."""
_log = logging.getLogger(__name__)


class CudaGraphs:
    """Runs work by name. On a device without graphs it just calls it, and so it does with work that
    could not be recorded, for lack of memory say.

    Args:
        device: where the work happens.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[Hashable, Any] = {}
        self._pool: Any = None
        # Work is warmed up where it is recorded: libraries keep memory for each stream.
        self._stream: Any = None
        # Why work has no graph, and how often it is still done without one.
        self._problems: dict[Hashable, str] = {}
        self._left: dict[Hashable, float] = {}
        if device.type != "cuda":
            self._problems[device] = f"device {device.type}"

    @property
    def problem(self) -> str | None:
        """None, or why the first graph that could not be recorded was not."""
        return next(iter(self._problems.values()), None)

    def run(self, name: Hashable, work: Callable[[], None]) -> None:
        """Do some work.

        Args:
            name: of this work alone.
            work: reads and writes tensors that never move, depends on nothing on the host, does
                not wait for the device, and may be done twice in a row.
        """
        if self._device.type != "cuda":
            work()
            return
        graph = self._graphs.get(name) or self._recorded(name, work)
        work() if graph is None else graph.replay()

    def _recorded(self, name: Hashable, work: Callable[[], None]) -> Any:
        """A graph, or None if it fails, and then for some runs or, but for lack of memory, ever."""
        if self._left.get(name, 0) > 0:
            self._left[name] -= 1
            return None
        try:
            graph = self._record(work)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            _log.warning("%s continues without a CUDA graph, slower: %s", name, reason)
            # The end of a broken capture may fail as well, and hide why it broke.
            lacks_memory = torch.OutOfMemoryError in (type(error), type(error.__context__))
            self._left[name] = _RUNS_WITHOUT if lacks_memory else math.inf
            self._problems[name] = reason
            return None
        self._graphs[name] = graph
        self._problems.pop(name, None)
        return graph

    def _record(self, work: Callable[[], None]) -> Any:
        with torch.cuda.device(self._device):
            self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._warm_up(work)
            graph = torch.cuda.CUDAGraph()
            # A capture that fails leaves its stream the current one, so the one before is set here.
            # Other threads may use the device meanwhile. Results lie outside of the pool, so
            # graphs may share it whatever their order.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(
                    graph,
                    pool=self._pool,
                    stream=self._stream,
                    capture_error_mode="thread_local",
                ),
            ):
                work()
        return graph

    def _warm_up(self, work: Callable[[], None]) -> None:
        """Let libraries get what they allocate at first use, which a capture must not see."""
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UPS):
                    work()
        finally:
            torch.cuda.current_stream().wait_stream(self._stream)
