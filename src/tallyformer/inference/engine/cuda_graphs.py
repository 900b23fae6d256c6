"""Work that is the same every time, recorded once as a CUDA graph and started by one launch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

import torch

_WARM_UPS = 2
_log = logging.getLogger(__name__)


class CudaGraphs:
    """Runs work by name. On a device without graphs it just calls it, and so it does with work that
    could not be recorded, for lack of memory say.

    Args:
        device: where the work happens.

    Attributes:
        problem: None while all work has its graph, or why the first one that has none does not.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[Hashable, Any] = {}
        self._pool: Any = None
        # Work is warmed up where it is recorded: libraries keep memory for each stream.
        self._stream: Any = None
        self.problem: str | None = None if device.type == "cuda" else f"device {device.type}"

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
        if name not in self._graphs:
            self._graphs[name] = self._recorded(name, work)
        graph = self._graphs[name]
        work() if graph is None else graph.replay()

    def _recorded(self, name: Hashable, work: Callable[[], None]) -> Any:
        """A graph, or None if it fails."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self._device):
                self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                self._warm_up(work)
                # Other threads may use the device meanwhile. Results lie outside of the pool, so
                # graphs may share it whatever their order.
                with torch.cuda.graph(
                    graph,
                    pool=self._pool,
                    stream=self._stream,
                    capture_error_mode="thread_local",
                ):
                    work()
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self.problem = self.problem or reason
            _log.warning("%s continues without a CUDA graph, slower: %s", name, reason)
            return None
        return graph

    def _warm_up(self, work: Callable[[], None]) -> None:
        """Let libraries get what they allocate at first use, which a capture must not see."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(self._stream)
