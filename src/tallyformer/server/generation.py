"""All answers of one request, as one flow of events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.outputs import FirstSpace, Piece
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.server.api_error import ApiError, unavailable, usual_message
from tallyformer.server.drain import Drain
from tallyformer.server.failures import invalid_request
from tallyformer.server.metrics import AnswerTimes

_LOGGER = logging.getLogger("tallyformer.server")
Event = tuple[int, Piece] | None
"""A piece of the answer with this number; None: nothing has come for a while."""


@dataclass(frozen=True, kw_only=True)
class WantedAnswer:
    """One answer that is wanted.

    Attributes:
        prompt_ids: what it follows.
        params: how it is sampled.
        chat: leave out the white space that the chat format has before an answer.
    """

    prompt_ids: list[int]
    params: SamplingParams
    chat: bool = False


class Generation:
    """Runs answers until all are finished, the deadline passes or the server ends.

    Args:
        llm: an `AsyncLLM`.
        wanted: the answers.
        times: measures each of them.
        drain: how the server ends.
        deadline: seconds for everything, waiting included.
        keep_alive: seconds without a piece after which an event says so.

    Raises:
        InvalidRequestError: a prompt or its settings are refused.
    """

    def __init__(
        self,
        llm: Any,
        wanted: Sequence[WantedAnswer],
        *,
        times: Sequence[AnswerTimes],
        drain: Drain,
        deadline: float,
        keep_alive: float,
    ) -> None:
        self._streams = [llm.stream(w.prompt_ids, w.params) for w in wanted]
        self._spaces = [FirstSpace() if w.chat else None for w in wanted]
        self._times = times
        self._drain = drain
        self._deadline = deadline
        self._keep_alive = keep_alive
        self._queue: asyncio.Queue[Event | ApiError] = asyncio.Queue()

    async def events(self) -> AsyncGenerator[Event, None]:
        """The pieces as they come; closing this ends all answers within a step.

        Raises:
            ApiError: the model failed, the deadline passed, or the server ends.
        """
        tasks = [asyncio.create_task(self._pump(number)) for number in range(len(self._streams))]
        left = len(tasks)
        with self._limits():
            try:
                while left:
                    event = await self._queue.get()
                    if isinstance(event, ApiError):
                        raise event
                    yield event
                    left -= event is not None and event[1].finish_reason is not None
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, number: int) -> None:
        space, times = self._spaces[number], self._times[number]
        try:
            async with contextlib.aclosing(self._streams[number]) as pieces:
                async for piece in pieces:
                    self._last = self._clock()
                    times.tokens(len(piece.token_ids))
                    kept = space.without(piece) if space else piece
                    if kept is not None:
                        self._queue.put_nowait((number, kept))
            times.finished()
        except Exception as error:
            self._queue.put_nowait(_told(error))

    @contextlib.contextmanager
    def _limits(self) -> Any:
        """While this block runs, the deadline, the server's end and silence become events."""
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._last = self._clock()
        late = loop.call_later(self._deadline, self._put, _too_late())
        self._beat = loop.call_later(self._keep_alive, self._maybe_silent)
        forget = self._drain.when_expired(lambda: self._put(_ending()))
        try:
            yield
        finally:
            late.cancel()
            self._beat.cancel()
            forget()

    def _put(self, error: ApiError) -> None:
        self._queue.put_nowait(error)

    def _maybe_silent(self) -> None:
        silent = self._clock() - self._last
        if silent >= self._keep_alive:
            self._queue.put_nowait(None)
            silent = 0.0
        loop = asyncio.get_running_loop()
        self._beat = loop.call_later(self._keep_alive - silent, self._maybe_silent)


def _told(error: Exception) -> ApiError:
    """What a client is told of a failure of the engine; the log has its kind and place."""
    if isinstance(error, InvalidRequestError):
        return invalid_request(error)
    _LOGGER.error("generation failed", exc_info=error)
    if isinstance(error, MemoryError):
        return unavailable("The server is short of memory. Try again later", code="out_of_memory")
    return ApiError(500, usual_message(500, ""))


def _too_late() -> ApiError:
    return unavailable("The answer took longer than this server allows", code="timeout")


def _ending() -> ApiError:
    return unavailable("The server is ending. Send this again", code="shutting_down")
