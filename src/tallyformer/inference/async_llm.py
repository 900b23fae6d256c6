"""`AsyncLLM`: a model for servers, asked from event loops. Loads no torch by itself."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from tallyformer.inference.outputs import FirstSpace, Output, Piece, joined, merged

if TYPE_CHECKING:
    from tallyformer.inference.engine.client import Asked
    from tallyformer.inference.llm import LLM
    from tallyformer.inference.prompts import Prompt
    from tallyformer.inference.sampling_params import SamplingParams


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
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._unfinished: set[_Stream] = set()
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

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None
    ) -> AsyncGenerator[Piece, None]:
        """Answer one prompt piece by piece; what came since the last read is one piece.

        It begins with the first read. Args, errors: as for `LLM.generate`; they are raised at
        the call.
        """
        return self._pieces(self.llm.asked(prompt, self.llm.settings(params)))

    async def generate(self, prompt: Prompt, params: SamplingParams | None = None) -> Output:
        """Answer one prompt. Args, errors: as for `LLM.generate`."""
        return await self._output(self.llm.asked(prompt, self.llm.settings(params)))

    def stream_chat(
        self, messages: Any, params: SamplingParams | None = None
    ) -> AsyncGenerator[Piece, None]:
        """Answer a conversation piece by piece. Args, errors: as for `LLM.stream_chat`."""
        return _without_first_space(self._pieces(self._asked_in_chat(messages, params)))

    async def chat(self, messages: Any, params: SamplingParams | None = None) -> Output:
        """Answer a conversation. Args, errors: as for `LLM.chat`."""
        output = await self._output(self._asked_in_chat(messages, params))
        return dataclasses.replace(output, text=output.text.lstrip())

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

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close(drain=error[0] is None)

    def _asked_in_chat(self, messages: Any, params: SamplingParams | None) -> Asked:
        settings = self.llm.chat_params(self.llm.settings(params))
        return self.llm.asked(self.llm.chat_prompt(messages), settings)

    async def _output(self, asked: Asked) -> Output:
        async with contextlib.aclosing(self._pieces(asked)) as pieces:
            return joined(asked[0], [piece async for piece in pieces])

    async def _pieces(self, asked: Asked) -> AsyncGenerator[Piece, None]:
        stream = self._open()
        try:
            stream.number = self._client.join(*asked, stream.put)
            while True:
                piece = await stream.next()
                yield piece
                if piece.finish_reason:
                    return
        finally:
            self._unfinished.discard(stream)
            self._client.leave(stream.number)

    def _open(self) -> _Stream:
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._closed:
                raise _closed()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
                self._thread.start()
            if loop not in self._mailboxes:
                alive = {k: box for k, box in self._mailboxes.items() if not k.is_closed()}
                self._mailboxes = {**alive, loop: _Mailbox(loop)}
            stream = _Stream(self._mailboxes[loop], self._unfinished)
            self._unfinished.add(stream)
        return stream

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
        for stream in list(self._unfinished):
            self._client.leave(stream.number)
            stream.put(error)


class _Mailbox:
    """What threads have for the streams of a loop; a step wakes the loop once for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: deque[tuple[_Stream, Piece | BaseException]] = deque()
        self._woken = False

    def post(self, stream: _Stream, got: Piece | BaseException) -> None:
        self._posted.append((stream, got))
        if not self._woken:
            self._woken = True
            # A loop that is closed has nobody who reads.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._woken = False
        while self._posted:
            stream, got = self._posted.popleft()
            stream.receive(got)


class _Stream:
    """One answer's way from the thread that steps into its loop."""

    number = -1

    def __init__(self, mailbox: _Mailbox, unfinished: set[_Stream]) -> None:
        self._mailbox = mailbox
        self._unfinished = unfinished
        self._pieces: list[Piece] = []
        self._error: BaseException | None = None
        self._news = asyncio.Event()

    def put(self, got: Piece | BaseException) -> None:
        """In the thread that steps."""
        if isinstance(got, BaseException) or got.finish_reason:
            self._unfinished.discard(self)
        self._mailbox.post(self, got)

    def receive(self, got: Piece | BaseException) -> None:
        """In the loop."""
        if isinstance(got, BaseException):
            self._error = got
        else:
            self._pieces.append(got)
        self._news.set()

    async def next(self) -> Piece:
        await self._news.wait()
        pieces, self._pieces = self._pieces, []
        if pieces:
            if self._error is None:
                self._news.clear()
            return merged(pieces)
        assert self._error is not None
        raise self._error


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
