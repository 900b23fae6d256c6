"""All cells of a benchmark, one after another."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tallyformer.bench.arrivals import poisson_times
from tallyformer.bench.loads import LoadRecord, closed_loop, open_loop
from tallyformer.bench.settings import BenchSettings
from tallyformer.bench.summary import Summary, summarise
from tallyformer.bench.target import Counts, Target
from tallyformer.errors import RunError, UsageError
from tallyformer.keyed_random import RandomStream

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measurement.

    Attributes:
        prompt_tokens: lengths of its prompts; of several each is as likely.
        streams: of a closed loop, else None.
        load: of an open loop, as a share of the capacity, else None.
        rate: of an open loop, in requests a second.
        summary: what came of it.
        raw: every request, as JSON has it.
    """

    prompt_tokens: tuple[int, ...]
    streams: int | None = None
    load: float | None = None
    rate: float | None = None
    summary: Summary
    raw: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """What it is, in words."""
        if self.load is not None:
            return f"load {self.load:.0%}, {self.rate:.3g} requests/s"
        lengths = "/".join(map(str, self.prompt_tokens))
        streams = "1 stream" if self.streams == 1 else f"{self.streams} streams"
        return f"prompts of {lengths} tokens, {streams}"


@dataclass
class Variant:
    """All cells of one target.

    Attributes:
        name: of the model.
        facts: what the target is.
        grid: the closed loops.
        capacity: the closed loop that tells how many requests a second can be answered.
        loads: the open loops.
    """

    name: str
    facts: dict[str, Any]
    grid: list[Cell] = field(default_factory=list)
    capacity: Cell | None = None
    loads: list[Cell] = field(default_factory=list)

    @property
    def cells(self) -> list[Cell]:
        """All of them, in the order of measuring."""
        return [*self.grid, *([self.capacity] if self.capacity else []), *self.loads]


class Measuring:
    """Measures one target; what has been measured is in `variant` at any time.

    Args:
        target: what is asked.
        settings: what is measured.
        tell: called with each finished cell.
    """

    def __init__(
        self, target: Target, settings: BenchSettings, tell: Callable[[Cell], None]
    ) -> None:
        self.variant = Variant(target.name, target.facts)
        self._target = target
        self._settings = settings
        self._lengths: tuple[int, ...] = ()
        self._tell = tell

    async def run(self) -> None:
        """Measure all cells.

        Raises:
            UsageError: the model reads none of the prompts whole.
            RunError: the target cannot be reached any more.
        """
        asked = self._settings.prompt_tokens
        self._lengths = tuple([length for length in asked if await self._target.prepare(length)])
        if left_out := "/".join(str(length) for length in asked if length not in self._lengths):
            self._leave_out(left_out)
        for length in self._lengths:
            for streams in self._settings.streams:
                self.variant.grid.append(await self._closed("grid", (length,), streams))
        if self._settings.loads:
            await self._under_load()

    def _leave_out(self, lengths: str) -> None:
        context = self.variant.facts["context"]
        told = f"{self.variant.name} reads {context} tokens at once"
        if not self._lengths:
            raise UsageError(f"--prompt-tokens: {told}, and not {lengths}. Give shorter ones")
        self.variant.facts["left_out"] = f"prompts of {lengths} tokens"
        _log.warning("%s: prompts of %s are left out", told, lengths)

    async def _under_load(self) -> None:
        lengths = self._lengths
        capacity = await self._closed("capacity", lengths, max(self._settings.streams))
        self.variant.capacity = capacity
        rate = capacity.summary.requests_per_second
        if not rate:
            raise RunError(
                f"{self._target.name}: no answer came while the capacity was measured "
                f"({_failures(capacity)}), so there is no load to be a share of it. "
                "Give more --seconds or fewer --streams, or --load none"
            )
        assert capacity.summary.end_to_end_ms is not None
        settled = capacity.summary.end_to_end_ms.percentiles[50] / 1000
        for load in self._settings.loads:
            self.variant.loads.append(await self._open(lengths, load, load * rate, settled))

    async def _closed(self, part: str, lengths: tuple[int, ...], streams: int) -> Cell:
        measured = await closed_loop(
            self._ask,
            self._prompts(lengths, f"{part}, {streams} streams"),
            streams=streams,
            seconds=self._settings.seconds,
            warmup=self._settings.warmup,
            timeout=self._settings.timeout,
        )
        return self._cell(measured, prompt_tokens=lengths, streams=streams)

    async def _open(
        self, lengths: tuple[int, ...], load: float, rate: float, settled: float
    ) -> Cell:
        times = poisson_times(rate, self._settings.seed, str(load))
        measured = await open_loop(
            self._ask,
            zip(times, self._prompts(lengths, f"load {load}"), strict=True),
            seconds=self._settings.seconds,
            warmup=max(self._settings.warmup, settled),
            timeout=self._settings.timeout,
        )
        return self._cell(measured, prompt_tokens=lengths, load=load, rate=rate)

    def _prompts(self, lengths: tuple[int, ...], cell: str) -> Iterator[Any]:
        """Those of a cell; no two are the same, so that none is answered from a cache."""
        key = (self._settings.seed, "/".join(map(str, lengths)), cell)
        drawn = RandomStream("length", *key)
        for number in itertools.count():
            yield self._target.prompt(lengths[drawn.below(len(lengths))], *key, number)

    async def _ask(self, prompt: Any, heard: Callable[[], None]) -> Counts:
        return await self._target.ask(prompt, self._settings.output_tokens, heard)

    def _cell(self, measured: LoadRecord, **what: Any) -> Cell:
        summary = summarise(
            measured,
            ttft_ms=self._settings.target_ttft_ms,
            itl_ms=self._settings.target_itl_ms,
        )
        raw = [request.as_json(measured.begin) for request in measured.requests]
        cell = Cell(summary=summary, raw=raw, **what)
        self._tell(cell)
        if set(summary.failures) == {"no connection"} and summary.failed == summary.requests:
            raise RunError(
                f"{self._target.name}: the server cannot be reached any more. See its log"
            )
        return cell


def _failures(cell: Cell) -> str:
    """How many requests failed and how, with what was said of one."""
    counted = ", ".join(f"{n} times {kind}" for kind, n in cell.summary.failures.items())
    said = next((r["detail"] for r in cell.raw if r["detail"]), "")
    return f"{counted}: {said}" if said else counted or "none failed"


def foreseen_seconds(settings: BenchSettings, variants: int) -> float:
    """About how long it takes at least."""
    return math.ceil(variants * settings.cells * (settings.seconds + settings.warmup))
