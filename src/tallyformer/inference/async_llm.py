"""`AsyncLLM`: a model for servers, asked from event loops. Loads no torch by itself."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from tallyformer.inference.outputs import FirstSpace, Output, Piece, by_sample, joined, merged

if TYPE_CHECKING:
    from tallyformer.inference.engine.client import EngineRequest
    from tallyformer.inference.llm import LLM
    from tallyformer.inference.prompts import Prompt
    from tallyformer.inference.sampling_params import SamplingParams

Receive = Callable[["Piece | BaseException"], object]


class AsyncLLM:
    """Answers any number of requests at once, of one or several event loops.

    A thread of its own takes them all on, step by step, and no loop is ever blocked for one. An
    answer is what `LLM` gives. A stream that is closed or cancelled is left out of the next step.
    The `LLM` may be used at the same time: they share its engine.

    Every method that asks raises `RuntimeError` if this is closed, and what a step raised, a
    `MemoryError` say, in all answers that were under way; what is asked later is answered.

    Args:
        llm: the model.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self._client = llm.client
        self._computes_on_cores = llm.device == "cpu"
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._unfinished: set[_Answer] = set()
        self._mailboxes: dict[asyncio.AbstractEventLoop, _Mailbox] = {}

    @property
    def slots(self) -> int:
        """Sequences that run at once; the others wait."""
        return self._client.slots

    @property
    def running(self) -> int:
        """Sequences that have a place in the engine."""
        return self._client.running

    @property
    def waiting(self) -> int:
        """Sequences that wait for a place; a server may refuse more of them."""
        return self._client.waiting

    def begin(self, asked: EngineRequest, receive: Receive) -> Callable[[], None]:
        """Begin an answer now; from then on its pieces come by themselves, in this event loop.

        Args:
            asked: as `LLM.asked` gives it.
            receive: called with each piece, and with an error in place of what has failed.

        Returns:
            What ends the answer, to be called in any case; nothing comes after that.
        """
        answer = self._open(asked.params.n, receive)

        def end() -> None:
            answer.receive = _nobody
            # In this order: the thread, once nothing is unfinished, clears up and then sleeps.
            self._client.leave(answer.numbers)
            self._unfinished.discard(answer)

        try:
            answer.numbers = self._client.join(asked, answer.put)
        except BaseException:
            end()
            raise
        return end

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        prefix_key: Hashable = None,
    ) -> AsyncGenerator[Piece, None]:
        """Answer one prompt piece by piece; what came since the last read is one piece a sample.

        It begins with the first read.

        Args:
            prompt, params: as for `LLM.generate`.
            prefix_key: the caller; see `LLM.generate`.

        Raises:
            InvalidRequestError: as for `LLM.generate`, at the call.
        """
        return self._pieces(self.llm.asked(prompt, self.llm.settings(params), prefix_key))

    async def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        prefix_key: Hashable = None,
    ) -> list[Output]:
        """Answer one prompt, with `n` samples. Args, errors: as for `stream`."""
        return await self._outputs(self.llm.asked(prompt, self.llm.settings(params), prefix_key))

    def stream_chat(
        self,
        messages: Any,
        params: SamplingParams | None = None,
        *,
        prefix_key: Hashable = None,
    ) -> AsyncGenerator[Piece, None]:
        """Answer a conversation piece by piece. Args, errors: as for `LLM.stream_chat`."""
        asked = self._asked_in_chat(messages, params, prefix_key)
        return _without_first_space(self._pieces(asked))

    async def chat(
        self,
        messages: Any,
        params: SamplingParams | None = None,
        *,
        prefix_key: Hashable = None,
    ) -> list[Output]:
        """Answer a conversation, with `n` samples. Args, errors: as for `LLM.chat`."""
        outputs = await self._outputs(self._asked_in_chat(messages, params, prefix_key))
        return [dataclasses.replace(output, text=output.text.lstrip()) for output in outputs]

    async def close(self, *, drain: bool = True) -> None:
        """Take no more requests, and end the thread.

        Args:
            drain: answers that are under way are finished first; else they raise `RuntimeError`.
        """
        with self._lock:
            self._closed = True
        if not drain:
            self._fail(_closed())
        self._client.wake()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._client.after_step.discard(self._wake_loops)

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close(drain=error[0] is None)

    def _asked_in_chat(
        self, messages: Any, params: SamplingParams | None, prefix_key: Hashable
    ) -> EngineRequest:
        settings = self.llm.chat_params(self.llm.settings(params))
        return self.llm.asked(self.llm.chat_prompt(messages), settings, prefix_key)

    async def _outputs(self, asked: EngineRequest) -> list[Output]:
        async with contextlib.aclosing(self._pieces(asked._replace(at_end=True))) as pieces:
            samples = by_sample([piece async for piece in pieces])
        return [joined(asked.prompt_ids, sample) for sample in samples]

    async def _pieces(self, asked: EngineRequest) -> AsyncGenerator[Piece, None]:
        new = _New()
        end = self.begin(asked, new.receive)
        try:
            left = asked.params.n
            while left:
                for piece in await new.pieces():
                    yield piece
                    left -= piece.finish_reason is not None
        finally:
            end()

    def _open(self, samples: int, receive: Receive) -> _Answer:
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._closed:
                raise _closed()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
                self._thread.start()
                self._client.after_step.add(self._wake_loops)
            if loop not in self._mailboxes:
                alive = {k: box for k, box in self._mailboxes.items() if not k.is_closed()}
                self._mailboxes = {**alive, loop: _Mailbox(loop)}
            answer = _Answer(self._mailboxes[loop], self._unfinished, samples, receive)
            self._unfinished.add(answer)
        return answer

    def _work(self) -> None:
        """The thread: steps as long as an answer is under way."""
        while True:
            self._client.wait(lambda: self._closed or bool(self._unfinished))
            if not self._unfinished:
                return
            try:
                self._client.advance(lambda: not self._unfinished)
                self._client.tidy()
            except BaseException as error:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        for answer in list(self._unfinished):
            self._client.leave(answer.numbers)
            answer.put(error)
        self._wake_loops()

    def _wake_loops(self) -> bool:
        """Whether to leave the processor to others: an answer begins, which somebody waits for."""
        begins = False
        for mailbox in tuple(self._mailboxes.values()):
            begins = mailbox.has_begun() or begins
            mailbox.wake()
        return begins and self._computes_on_cores


class _Mailbox:
    """What threads have for the answers of a loop; a step wakes the loop once for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: deque[tuple[_Answer, Piece | BaseException]] = deque()
        self._begins = False

    def post(self, answer: _Answer, got: Piece | BaseException, *, begins: bool) -> None:
        self._posted.append((answer, got))
        self._begins = self._begins or begins

    def has_begun(self) -> bool:
        """Whether an answer has begun since the last time."""
        begins, self._begins = self._begins, False
        return begins

    def wake(self) -> None:
        if self._posted:
            # A loop that is closed has nobody who reads.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        try:
            while self._posted:
                answer, got = self._posted.popleft()
                answer.receive(got)
        finally:
            self.wake()  # where one failed, the others get theirs


class _Answer:
    """One answer's way from the thread that steps into its loop.

    Attributes:
        numbers: its sequences in the engine.
        receive: called in the loop.
    """

    def __init__(
        self, mailbox: _Mailbox, unfinished: set[_Answer], samples: int, receive: Receive
    ) -> None:
        self.numbers: Sequence[int] = ()
        self.receive = receive
        self._mailbox = mailbox
        self._unfinished = unfinished
        self._left = samples
        self._begins = True

    def put(self, got: Piece | BaseException) -> None:
        """In the thread that steps."""
        ends = isinstance(got, BaseException) or got.finish_reason
        self._left -= bool(ends)
        if isinstance(got, BaseException) or not self._left:
            self._unfinished.discard(self)
        self._mailbox.post(self, got, begins=self._begins)
        self._begins = False


class _New:
    """What has come of an answer since it was read the last time."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._error: BaseException | None = None
        self._is_there = asyncio.Event()

    def receive(self, got: Piece | BaseException) -> None:
        if isinstance(got, BaseException):
            self._error = got
        else:
            self._pieces.append(got)
        self._is_there.set()

    async def pieces(self) -> list[Piece]:
        """One piece a sample; an error after all that came before it."""
        await self._is_there.wait()
        pieces, self._pieces = self._pieces, []
        if pieces:
            if self._error is None:
                self._is_there.clear()
            return [merged(sample) for sample in by_sample(pieces)]
        assert self._error is not None
        raise self._error


def _nobody(_: Piece | BaseException) -> None:
    """Of what comes after the end."""


async def _without_first_space(
    pieces: AsyncGenerator[Piece, None],
) -> AsyncGenerator[Piece, None]:
    space = FirstSpace()
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            if (rest := space.without(piece)) is not None:
                yield rest


def _closed() -> RuntimeError:
    return RuntimeError("AsyncLLM: it has been closed. Make another one")
