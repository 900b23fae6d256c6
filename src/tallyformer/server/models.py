"""The models that are served, by name: loaded one after the other, while others already answer.

A model whose folder was changed is replaced: what runs ends on the old weights, which are let go of
with their last request, and what comes later is answered by the new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tallyformer import __version__
from tallyformer.inference.grammar import Grammars
from tallyformer.server.admission import Admission
from tallyformer.server.api_error import ApiError, unavailable
from tallyformer.server.model_sizes import ModelSizes, sizes_of
from tallyformer.server.versions import Stamp, content_digest, folder_stamp

ModelState = Literal["loading", "ready", "failed"]
_LOGGER = logging.getLogger("tallyformer.server")
LOADING_PATIENCE = 5.0
"""Seconds that a request waits for a model which is being loaded."""


@dataclass
class ServedModel:
    """One model.

    Attributes:
        name: as requests name it.
        folder: where it is from.
        state: `ready` when it has answered once.
        llm: None until it is ready.
        sizes: None until it is ready.
        admission: who may wait for it; of no use until it is ready.
        grammars: what makes its masks, once one has been asked for.
        fingerprint: equal as long as the same seed gives the same answer.
        created: seconds since 1970, when it was named.
        stamp: of the folder, as it was when this was loaded.
        failure: why it could not be loaded.
        settled: set when it is ready or could not be loaded.
    """

    name: str
    folder: Path
    state: ModelState = "loading"
    llm: Any = None
    sizes: ModelSizes | None = None
    admission: Admission = field(default_factory=lambda: Admission(1, 0))
    grammars: Grammars | None = None
    fingerprint: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    stamp: Stamp = ()
    failure: Exception | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Models:
    """All models of a server.

    Args:
        folders: name -> folder, in the order in which they are loaded.
        load: a folder's `AsyncLLM`, warmed up; called in another thread.
        most_waiting: answers that may wait for a model, and requests for one that is loaded.
        patience: seconds that these wait.

    Attributes:
        failed: set when a model could not be loaded.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        load: Callable[[Path], Any],
        most_waiting: int,
        patience: float = LOADING_PATIENCE,
    ) -> None:
        self._load = load
        self._watchers: list[Callable[[ServedModel], None]] = []
        self._most_waiting = most_waiting
        self._patience = patience
        self._early = 0
        self.failed = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._turn = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self._models = {name: ServedModel(name, folder) for name, folder in folders.items()}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    @property
    def ready(self) -> bool:
        """Whether every model can answer."""
        return all(model.state == "ready" for model in self)

    @property
    def failure(self) -> Exception | None:
        """Why the first model that could not be loaded could not."""
        return next((model.failure for model in self if model.failure), None)

    def when_ready(self, watcher: Callable[[ServedModel], None]) -> None:
        """Have something called with each model that becomes ready."""
        self._watchers.append(watcher)

    async def load_all(self) -> None:
        """Load the models one after the other; what fails is remembered and logged."""
        async with self._turn:
            for model in list(self):
                try:
                    await self._fill(model)
                except Exception as error:
                    model.state, model.failure = "failed", error
                    model.settled.set()
                    self.failed.set()
                    _LOGGER.error("model failed", extra={"fields": {"model": model.name}})
                    return
        self._all_ready.set()

    async def reload(self) -> None:
        """Load again the models whose folders were changed, one after the other.

        Each takes the place of the old one when it is ready. One that cannot be loaded is logged,
        and the old one stays.
        """
        async with self._turn:
            for name in self._models:
                fields: dict[str, Any] = {"model": name}
                try:
                    replaced = await self._replace(name)
                except Exception as error:
                    fields["reason"] = str(error) or type(error).__name__
                    _LOGGER.error("model kept, as the new one failed", extra={"fields": fields})
                else:
                    if not replaced:
                        _LOGGER.info("model kept, as it is unchanged", extra={"fields": fields})

    async def _replace(self, name: str) -> bool:
        old = self._models[name]
        if folder_stamp(old.folder) == old.stamp:
            return False
        new = ServedModel(name, old.folder)
        await self._fill(new)
        self._models[name] = new
        # A request may have been given the old one and not have begun, so that only the last
        # reference tells that nobody needs it.
        loop = asyncio.get_running_loop()
        end = weakref.finalize(old, _in_loop, loop, self._end, old.llm)
        end.atexit = False
        return True

    async def _fill(self, model: ServedModel) -> None:
        began = time.monotonic()
        model.stamp = folder_stamp(model.folder)
        model.llm = await asyncio.to_thread(self._load, model.folder)
        model.sizes = await asyncio.to_thread(sizes_of, model.folder)
        model.admission = Admission(model.llm.slots, self._most_waiting)
        model.fingerprint = await asyncio.to_thread(_fingerprint, model)
        model.state = "ready"
        model.settled.set()
        for watcher in self._watchers:
            watcher(model)
        seconds = round(time.monotonic() - began, 3)
        _LOGGER.info("model ready", extra={"fields": {"model": model.name, "seconds": seconds}})

    def _end(self, llm: Any) -> None:
        """End the threads of a model that nobody asks any more."""
        task = asyncio.get_running_loop().create_task(llm.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def until_ready(self) -> None:
        """Wait until every model answers.

        Raises:
            TallyFormerError: one could not be loaded.
        """
        ways = [asyncio.create_task(e.wait()) for e in (self._all_ready, self.failed)]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
        if self.failure:
            raise self.failure

    async def close(self) -> None:
        """End the models' threads; what they still answer is broken off."""
        for model in self:
            if model.llm is not None:
                await model.llm.close(drain=False)

    def named(self, name: str, field: str = "model") -> ServedModel:
        """The model that a request names in this field.

        Raises:
            ApiError: 404, there is none of this name.
        """
        model = self._models.get(name)
        if model is None:
            raise ApiError(
                404,
                "There is no model of this name. See /v1/models for those that there are",
                param=field,
                code="model_not_found",
            )
        return model

    async def answering(self, name: str | None, field: str = "model") -> ServedModel:
        """The model that a request names in this field, ready; the first one if it names none.

        A model that is being loaded is waited for a short while.

        Raises:
            ApiError: 404, there is none of this name; 503, it is not ready.
        """
        model = self.named(name, field) if name else next(iter(self), None)
        if model is None:
            raise ApiError(404, "This server has no model", code="model_not_found")
        if model.state == "loading":
            await self._loaded(model)
        if model.state != "ready":
            raise unavailable(
                "This model is not loaded yet. Try again soon", code="model_not_ready"
            )
        return model

    async def _loaded(self, model: ServedModel) -> None:
        """Wait until a model is loaded, unless too many requests do already, or it takes long."""
        if self._early > self._most_waiting:
            return
        self._early += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await model.settled.wait()
        finally:
            self._early -= 1


def _fingerprint(model: ServedModel) -> str:
    llm = model.llm.llm
    parts = (__version__, model.name, llm.runner_name, llm.dtype, content_digest(model.folder))
    return "fp_" + hashlib.sha256(" ".join(parts).encode()).hexdigest()[:10]


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[Any], None], value: Any) -> None:
    """Call a function in a loop, from wherever Python lets an object go."""
    with contextlib.suppress(RuntimeError):  # the loop has ended, and all threads with it
        loop.call_soon_threadsafe(function, value)
