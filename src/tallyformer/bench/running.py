"""A whole benchmark: targets are made, measured and left, and what was measured is written."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tallyformer.artifacts.versions import utc_now
from tallyformer.bench.folder import write_results
from tallyformer.bench.measuring import Cell, Measuring, Variant
from tallyformer.bench.results import Results
from tallyformer.bench.server_target import connect
from tallyformer.bench.settings import BenchSettings
from tallyformer.bench.target import Target
from tallyformer.evaluation.machine import describe_machine
from tallyformer.inference.runner_names import RunnerName

_WATCH_SECONDS = 0.05


class Wanted(Protocol):
    """A target that is made when its turn comes."""

    def made(self, timeout: float) -> contextlib.AbstractAsyncContextManager[Target]:
        """The target; it is left at the end of the block.

        Args:
            timeout: seconds for an answer.
        """


@dataclass(frozen=True)
class ModelWanted:
    """A folder's model; what is None, `LLM.from_pretrained` chooses."""

    folder: Path
    dtype: str | None = None
    device: str | None = None
    runner: RunnerName | None = None

    def check(self) -> None:
        """Refuse, before anything is measured, what cannot be loaded so.

        Raises:
            ArtifactError, UsageError: as for `LLM.from_pretrained`.
        """
        from tallyformer.inference.runners import choose_runner

        how = {"dtype": self.dtype, "device": self.device, "runner": self.runner}
        if choose_runner(self.folder, **how).name == "torch":
            from tallyformer.model.device import choose_device  # loads torch

            choose_device(self.device)

    @contextlib.asynccontextmanager
    async def made(self, timeout: float) -> AsyncIterator[Target]:
        """Load it; its memory is free after the block."""
        from tallyformer.bench.model_target import ModelTarget

        target = ModelTarget.load(
            self.folder, dtype=self.dtype, device=self.device, runner=self.runner
        )
        try:
            yield target
        finally:
            await target.close()
            del target
            gc.collect()


@dataclass(frozen=True)
class ServerWanted:
    """A server's model; see `connect`."""

    url: str
    model: str | None = None
    key: str | None = None
    endpoint: str | None = None
    count_chunks: bool = False

    @contextlib.asynccontextmanager
    async def made(self, timeout: float) -> AsyncIterator[Target]:
        """Connect."""
        target = await connect(
            self.url,
            model=self.model,
            key=self.key,
            endpoint=self.endpoint,
            count_chunks=self.count_chunks,
            timeout=timeout,
        )
        try:
            yield target
        finally:
            await target.close()


def run_bench(
    name: str,
    wanted: Sequence[Wanted],
    settings: BenchSettings,
    folder: Path,
    *,
    tell: Callable[[Cell], None],
    stopped: Callable[[], bool],
) -> None:
    """Measure, and write the report, of a part if there is no more.

    Args:
        name: the folder or URL, as the user wrote it.
        wanted: what is measured, one after another.
        settings: how.
        folder: of the report.
        tell: called with each finished cell.
        stopped: whether the user wants no more; asked often.

    Raises:
        TallyFormerError: a target cannot be used, or no more. What had been measured is written.
    """
    variants: list[Variant] = []
    partial = "the measurement broke off"
    try:
        if asyncio.run(_measured(wanted, settings, variants, tell, stopped)):
            partial = ""
        else:
            partial = "the measurement was stopped"
    except BaseExceptionGroup as group:
        raise _first(group) from None
    finally:
        if any(variant.cells for variant in variants):
            date = utc_now().isoformat(timespec="seconds")
            machine = describe_machine()
            write_results(Results(name, date, machine, settings, variants, partial), folder)


async def _measured(
    wanted: Sequence[Wanted],
    settings: BenchSettings,
    variants: list[Variant],
    tell: Callable[[Cell], None],
    stopped: Callable[[], bool],
) -> bool:
    """Whether everything was measured."""
    measuring = asyncio.create_task(_all(wanted, settings, variants, tell))
    while not measuring.done():
        await asyncio.wait([measuring], timeout=_WATCH_SECONDS)
        if stopped() and not measuring.done():
            measuring.cancel()
            await asyncio.wait([measuring])
            break
    if measuring.cancelled():
        return False
    measuring.result()
    return True


async def _all(
    wanted: Sequence[Wanted],
    settings: BenchSettings,
    variants: list[Variant],
    tell: Callable[[Cell], None],
) -> None:
    for one in wanted:
        async with one.made(settings.timeout) as target:
            measuring = Measuring(target, settings, tell)
            variants.append(measuring.variant)
            await measuring.run()


def _first(group: BaseExceptionGroup) -> BaseException:
    """The first error of a group that is none itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
