"""All answers of one request, as one flow of events."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.outputs import FirstSpace, Piece, TokenLogprob, merged
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.server.api_error import ApiError, unavailable, usual_message
from tallyformer.server.drain import Drain
from tallyformer.server.failures import invalid_request
from tallyformer.server.memory import AnswerMemory, bytes_of
from tallyformer.server.metrics import AnswerTimes

_LOGGER = logging.getLogger("tallyformer.server")
_FIRST_SECONDS = 0.1
"""Without a first piece; a client that waits longer is told that it waits."""
_MOST_AT_ONCE = 64
"""Pieces that are read as one."""
Event = tuple[int, Piece] | None
"""A piece of the answer with this number; None: nothing has come for a while."""


@dataclass(frozen=True, kw_only=True)
class WantedAnswers:
    """Answers that are wanted to one prompt.

    Attributes:
        prompt_ids: what they follow.
        params: how they are sampled, and how many there are.
        chat: leave out the white space that the chat format has before an answer.
    """

    prompt_ids: list[int]
    params: SamplingParams
    chat: bool = False


class Generation:
    """Runs answers until all are finished, the deadline passes or the server ends.

    Args:
        llm: an `AsyncLLM`.
        wanted: the answers, numbered in this order.
        prefix_key: whose prompts may share what they begin with; None shares nothing.
        times: measures each of them.
        drain: how the server ends.
        deadline: seconds for everything, waiting included.
        keep_alive: seconds without a piece after which an event says so; the first one sooner.
        memory: what is kept of all answers.
        whole: whether whoever reads the events keeps them to the end.

    Raises:
        InvalidRequestError: a prompt or its settings are refused.
    """

    def __init__(
        self,
        llm: Any,
        wanted: Sequence[WantedAnswers],
        *,
        prefix_key: Hashable,
        times: Sequence[AnswerTimes],
        drain: Drain,
        deadline: float,
        keep_alive: float,
        memory: AnswerMemory,
        whole: bool,
    ) -> None:
        self._llm = llm
        self._wanted = wanted
        self._asked = [llm.llm.asked(w.prompt_ids, w.params, prefix_key) for w in wanted]
        self._times = times
        self._drain = drain
        self._deadline = deadline
        self._keep_alive = keep_alive
        self._memory = memory
        self._whole = whole
        self._unmade = sum(one.params.n for one in wanted)
        self._when_made: Callable[[], object] = lambda: None
        self._news: deque[Event | ApiError] = deque()
        self._is_news = asyncio.Event()
        self._ends: list[Callable[[], None]] = []
        self._is_read = False

    def begin(self) -> None:
        """Begin all answers, before anybody reads them.

        So a prompt is computed while the head of the response is written.

        Raises:
            ApiError: the model cannot.
        """
        self._clock = asyncio.get_running_loop().time
        self._last, self._patience = self._clock(), min(self._keep_alive, _FIRST_SECONDS)
        self._kept = self._memory.begin(self.give_up)
        first = 0
        try:
            for one, asked in zip(self._wanted, self._asked, strict=True):
                self._ends.append(self._llm.begin(asked, self._receiver(one, first)))
                first += one.params.n
            time.sleep(0)  # Python's lock for the engine, which begins while the head is written
        except Exception as error:
            self._end()
            raise _told(error) from error

    async def events(self) -> AsyncGenerator[Event, None]:
        """The pieces as they come; closing this ends all answers within a step.

        Of what came since the last read, several pieces of one answer in a row are one.

        Raises:
            ApiError: the model failed, the deadline passed, or the server ends.
        """
        self._is_read = True
        left = sum(one.params.n for one in self._wanted)
        with self._limits():
            try:
                while left:
                    if not self._news:
                        self._is_news.clear()
                        await self._is_news.wait()
                    event = self._next()
                    yield event
                    left -= event is not None and event[1].finish_reason is not None
            finally:
                self._end()

    def end_unread(self) -> None:
        """End answers whose events nobody has begun to read."""
        if not self._is_read:
            self._end()

    def when_made(self, callback: Callable[[], object]) -> None:
        """Have something called when all answers are made, whether they have been read or not."""
        self._when_made = callback

    def give_up(self) -> None:
        """End all answers for lack of memory; what was not read of them is let go of."""
        self._news.clear()
        self._fail(_too_much())

    def _end(self) -> None:
        """Make nothing more, and keep nothing."""
        self._stop()
        self._memory.end(self._kept)

    def _fail(self, error: ApiError) -> None:
        """Make nothing more; who reads is told after all that was made."""
        self._stop()
        self._tell(error)

    def _stop(self) -> None:
        for end in self._ends:
            end()
        self._ends.clear()
        self._when_made()

    def _tell(self, news: Event | ApiError) -> None:
        self._news.append(news)
        self._is_news.set()

    def _next(self) -> Event:
        """The oldest of what has not been read."""
        event = self._news.popleft()
        if isinstance(event, ApiError):
            raise event
        if event is None:
            return None
        number, piece = event
        pieces = [piece]
        while self._news and len(pieces) < _MOST_AT_ONCE:
            following = self._news[0]
            if not isinstance(following, tuple) or following[0] != number:
                break
            pieces.append(following[1])
            self._news.popleft()
        if not self._whole:
            self._memory.grow(self._kept, -sum(map(bytes_of, pieces)))
        return number, merged(pieces)

    def _receiver(
        self, wanted: WantedAnswers, first: int
    ) -> Callable[[Piece | BaseException], None]:
        """What takes the answers to one prompt; `first` is the number of the first of them."""
        space = FirstSpace() if wanted.chat else None
        scores = _PromptScores(wanted.params)

        def receive(got: Piece | BaseException) -> None:
            if isinstance(got, BaseException):
                self._fail(_told(got))
                return
            self._last, self._patience = self._clock(), self._keep_alive
            self._measure(self._times[first + got.index], got)
            for scored in scores.given_to(got):
                kept = space.without(scored) if space else scored
                if kept is not None:
                    self._tell((first + kept.index, kept))
                    self._memory.grow(self._kept, bytes_of(kept))
            self._unmade -= got.finish_reason is not None
            if not self._unmade:
                self._when_made()

        return receive

    @staticmethod
    def _measure(times: AnswerTimes, piece: Piece) -> None:
        if piece.queue_seconds is not None:
            times.waited(piece.queue_seconds)
        times.tokens(len(piece.token_ids))
        if piece.finish_reason is not None:
            times.finished()

    @contextlib.contextmanager
    def _limits(self) -> Any:
        """While this block runs, the deadline, the server's end and silence become events."""
        loop = asyncio.get_running_loop()
        late = loop.call_later(self._deadline, self._tell, _too_late())
        self._beat = loop.call_later(self._patience, self._maybe_silent)
        forget = self._drain.when_expired(lambda: self._tell(_ending()))
        try:
            yield
        finally:
            late.cancel()
            self._beat.cancel()
            forget()

    def _maybe_silent(self) -> None:
        silent = self._clock() - self._last
        if silent >= self._patience:
            self._tell(None)
            silent, self._patience = 0.0, self._keep_alive
        loop = asyncio.get_running_loop()
        self._beat = loop.call_later(self._patience - silent, self._maybe_silent)


class _PromptScores:
    """Gives all samples the prompt's log-probabilities, which only the first one's piece has."""

    def __init__(self, params: SamplingParams) -> None:
        self._shared = params.prompt_logprobs is not None and params.n > 1
        self._scores: list[TokenLogprob | None] = []
        self._has_scores = False
        self._waiting: list[Piece] = []
        self._begun: set[int] = set()

    def given_to(self, piece: Piece) -> list[Piece]:
        """The pieces that can be passed on now."""
        if not self._shared:
            return [piece]
        self._waiting.append(piece)
        if not self._has_scores:
            if piece.index:
                return []
            self._scores, self._has_scores = piece.prompt_logprobs, True
        ready, self._waiting = self._waiting, []
        return [self._with_scores(one) for one in ready]

    def _with_scores(self, piece: Piece) -> Piece:
        if piece.index in self._begun:
            return piece
        self._begun.add(piece.index)
        return dataclasses.replace(piece, prompt_logprobs=self._scores)


def _told(error: BaseException) -> ApiError:
    """What a client is told of a failure of the engine; the log has its kind and place."""
    if isinstance(error, InvalidRequestError):
        return invalid_request(error)
    _LOGGER.error("generation failed", exc_info=error)
    if isinstance(error, MemoryError):
        return unavailable("The server is short of memory. Try again later", code="out_of_memory")
    return ApiError(500, usual_message(500, ""))


def _too_late() -> ApiError:
    return unavailable("The answer took longer than this server allows", code="timeout")


def _too_much() -> ApiError:
    return unavailable(
        "There is no memory for more of this answer. Ask for fewer tokens, or read a stream faster",
        code="out_of_memory",
    )


def _ending() -> ApiError:
    return unavailable("The server is ending. Send this again", code="shutting_down")
