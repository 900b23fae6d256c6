"""The models that are served, by name: loaded one after the other, while others already answer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tallyformer import __version__
from tallyformer.errors import TallyFormerError
from tallyformer.inference.grammar import Grammars
from tallyformer.server.admission import Admission
from tallyformer.server.api_error import ApiError, unavailable
from tallyformer.server.model_sizes import ModelSizes, sizes_of

ModelState = Literal["loading", "ready", "failed"]
_LOGGER = logging.getLogger("tallyformer.server")


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
        failure: why it could not be loaded.
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
    failure: TallyFormerError | None = None


class Models:
    """All models of a server.

    Args:
        folders: name -> folder, in the order in which they are loaded.
        load: a folder's `AsyncLLM`, warmed up; called in another thread.
        most_waiting: answers that may wait for a model.

    Attributes:
        failed: set when a model could not be loaded.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        load: Callable[[Path], Any],
        most_waiting: int,
    ) -> None:
        self._load = load
        self._watchers: list[Callable[[ServedModel], None]] = []
        self._most_waiting = most_waiting
        self.failed = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._models = {name: ServedModel(name, folder) for name, folder in folders.items()}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    @property
    def ready(self) -> bool:
        """Whether every model can answer."""
        return all(model.state == "ready" for model in self)

    @property
    def failure(self) -> TallyFormerError | None:
        """Why the first model that could not be loaded could not."""
        return next((model.failure for model in self if model.failure), None)

    def when_ready(self, watcher: Callable[[ServedModel], None]) -> None:
        """Have something called with each model that becomes ready."""
        self._watchers.append(watcher)

    async def load_all(self) -> None:
        """Load the models one after the other; what fails is remembered and logged."""
        for model in list(self):
            began = time.monotonic()
            try:
                model.llm = await asyncio.to_thread(self._load, model.folder)
                model.sizes = await asyncio.to_thread(sizes_of, model.folder)
                model.admission = Admission(model.llm.slots, self._most_waiting)
                model.fingerprint = _fingerprint(model)
                model.state = "ready"
                for watcher in self._watchers:
                    watcher(model)
            except TallyFormerError as error:
                model.state, model.failure = "failed", error
                self.failed.set()
                _LOGGER.error("model failed", extra={"fields": {"model": model.name}})
                return
            seconds = round(time.monotonic() - began, 3)
            fields = {"model": model.name, "seconds": seconds}
            _LOGGER.info("model ready", extra={"fields": fields})
        self._all_ready.set()

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

    def named(self, name: str) -> ServedModel:
        """The model of a request.

        Raises:
            ApiError: 404, there is none of this name.
        """
        model = self._models.get(name)
        if model is None:
            raise ApiError(
                404,
                "There is no model of this name. See /v1/models for those that there are",
                param="model",
                code="model_not_found",
            )
        return model

    def answering(self, name: str | None) -> ServedModel:
        """The model of a request, ready; the first one if it does not say.

        Raises:
            ApiError: 404, there is none of this name; 503, it is not ready.
        """
        model = next(iter(self)) if name is None else self.named(name)
        if model.state != "ready":
            raise unavailable(
                "This model is not loaded yet. Try again soon", code="model_not_ready"
            )
        return model


def _fingerprint(model: ServedModel) -> str:
    secret = f"{__version__} {model.name} {model.llm.llm.tokenizer.fingerprint}"
    return "fp_" + hashlib.sha256(secret.encode()).hexdigest()[:10]
