"""Work that is the same every time, recorded once as a CUDA graph and started by one launch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

import torch

_WARM_UPS = 2
_log = logging.getLogger(__name__)


class CudaGraphs:
    """Runs work by name. On a device without graphs, or after one that failed, it just calls it.

    Args:
        device: where the work happens.

    Attributes:
        problem: None while graphs are used, or why they are not.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[Hashable, Any] = {}
        self._pool: Any = None
        self.problem: str | None = None if device.type == "cuda" else f"device {device.type}"

    def run(self, name: Hashable, work: Callable[[], None]) -> None:
        """Do some work.

        Args:
            name: of this work alone.
            work: reads and writes tensors that never move, depends on nothing on the host, does
                not wait for the device, and may be done twice in a row.
        """
        if self.problem is None and name not in self._graphs:
            self._record(name, work)
        if self.problem is None:
            self._graphs[name].replay()
        else:
            work()

    def _record(self, name: Hashable, work: Callable[[], None]) -> None:
        try:
            with torch.cuda.device(self._device):
                self._warm_up(work)
                graph = torch.cuda.CUDAGraph()
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                # Other threads may use the device meanwhile. Results lie outside of the pool, so
                # graphs may share it whatever their order.
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    work()
        except Exception as error:
            self.problem = " ".join(str(error).split())[:200] or type(error).__name__
            self._graphs.clear()
            _log.warning("continues without CUDA graphs, slower: %s", self.problem)
            return
        self._graphs[name] = graph

    def _warm_up(self, work: Callable[[], None]) -> None:
        """Let libraries get what they allocate at first use, which a capture must not see."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(side)
